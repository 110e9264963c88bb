"""MIG grants by the protocol: an instance is made for a request, kept idle after it, reused, evicted."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.daemon import Sleeper
from tests.support.mig_daemon import MigDaemon

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: MIG is changed by root alone")


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[MigDaemon]:
    """One A100 with 40 GB."""
    with MigDaemon(tmp_path) as running:
        yield running


def test_an_instance_is_made_for_a_request(daemon: MigDaemon) -> None:
    """The smallest that holds the amount, where it spoils least; what the container gets is what NVML shows."""
    granted = daemon.create("GPU_MEMORY_LIMIT=10G", id="one")
    assert daemon.shown() == [[6, 15, 6, 2]]
    assert granted.spec is not None
    with Sleeper() as container:
        daemon.confirm(granted.token, container)
        (row,) = daemon.ps()
        assert row["enforced_by"] == "mig"
        assert row["mig"]["profile"] == "1g.10gb"
        assert row["mig"]["uuid"] == daemon.nvml.ask("n.nvmlDeviceGetUUID(mig(0))")
        assert row["gpus"][0]["limit"] == 9856 << 20
        assert daemon.states() == ["1g.10gb@6 in-use"]
    daemon.until(lambda: not daemon.ps())
    assert daemon.states() == ["1g.10gb@6 idle"]
    assert daemon.shown() == [[6, 15, 6, 2]]
