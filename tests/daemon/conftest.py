"""A daemon on one simulated GPU of 80 GB for each test; see tests/support/daemon.py."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.daemon import Cgroup, Daemon


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    with Daemon(tmp_path) as running:
        yield running


@pytest.fixture
def cgroup() -> Iterator[Cgroup]:
    """A cgroup of this test's own."""
    if os.geteuid() != 0:
        pytest.skip("needs root: makes a cgroup")
    made = Cgroup(f"gpuportion-test-{os.getpid()}")
    yield made
    made.remove()
