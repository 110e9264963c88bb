"""One node for all end-to-end tests; each test finds it empty and must leave it so."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support import later_engines
from tests.support.node import Node

from gpuportion.cli import children, rootfs

later_engines.prefer(os.environ)


def pytest_report_header() -> str:
    """Which engines are run: docs/engines.md says what these runs have shown."""
    return f"engines: {later_engines.versions()}"


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


@pytest.fixture(scope="session")
def short_folder() -> Iterator[Path]:
    """For sockets, whose paths must be short."""
    folder = Path(tempfile.mkdtemp(prefix="gpuportion-e-", dir="/tmp"))
    try:
        yield folder
    finally:
        children.remove_folder(str(folder))


@pytest.fixture(scope="session")
def root_tar(short_folder: Path) -> Path:
    """The tests' image as a tar."""
    path = short_folder / "root.tar"
    with path.open("wb") as out:
        rootfs.write(out, clients=rootfs.CLIENTS)
    return path


@pytest.fixture(scope="session")
def root_folder(short_folder: Path, root_tar: Path) -> Path:
    """The tests' image unpacked, for engines that take a folder."""
    folder = short_folder / "rootfs"
    folder.mkdir()
    subprocess.run(["tar", "xf", str(root_tar), "-C", str(folder)], check=True)
    return folder
