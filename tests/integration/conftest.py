"""One node for all end-to-end tests; each test finds it empty and must leave it so."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.node import Node


@pytest.fixture(scope="session")
def running_node() -> Iterator[Node]:
    if os.geteuid() != 0:
        pytest.skip("needs root: starts dockerd and mounts")
    for program in ("dockerd", "runc"):
        if shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None:
            pytest.skip(f"needs {program}")
    folder = Path(tempfile.mkdtemp(prefix="gpuportion-tests-", dir="/tmp"))
    node = Node(folder)
    try:
        node.start()
        yield node
    finally:
        node.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def node(running_node: Node) -> Iterator[Node]:
    yield running_node
    running_node.until(lambda: not running_node.ps())
