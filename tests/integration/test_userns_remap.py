"""docker with userns-remap: root of every container is an ordinary user of the host."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.node import Node
from tests.support.session import holds_to_1g

pytestmark = pytest.mark.containers

CLONE_NEWNS = 0x20000


@contextlib.contextmanager
def mounts_of_its_own() -> Iterator[None]:
    """This thread, and what it starts, in a mount namespace of its own."""
    libc = ctypes.CDLL(None, use_errno=True)
    folder = Path.cwd()
    with open("/proc/thread-self/ns/mnt", "rb") as before:
        if libc.unshare(CLONE_NEWNS) != 0:
            pytest.skip(f"needs a mount namespace: {os.strerror(ctypes.get_errno())}")
        try:
            subprocess.run(["mount", "--make-rslave", "/"], check=True)
            yield
        finally:
            assert libc.setns(before.fileno(), CLONE_NEWNS) == 0
            os.chdir(folder)


@pytest.fixture
def remapped(monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    """A node whose docker maps root to user 100000, as files say that only it sees as those of /etc."""
    if os.geteuid() != 0:
        pytest.skip("needs root: starts dockerd and mounts")
    if shutil.which("dockerd", path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None:
        pytest.skip("needs dockerd")
    monkeypatch.setenv("GPUPORTION_RUN_DIR", "")  # Node sets it; here it's given back
    folder = Path(tempfile.mkdtemp(prefix="gpuportion-remap-", dir="/tmp"))
    folder.chmod(0o711)  # an installed node's folders are 0755
    (folder / "subuid").write_text("nobody:100000:65536\n")
    (folder / "subgid").write_text("nobody:100000:65536\n")
    with mounts_of_its_own():
        for name in ("subuid", "subgid"):
            subprocess.run(["mount", "--bind", str(folder / name), f"/etc/{name}"], check=True)
        node = Node(folder / "node", sim="a100-80gb,h100-80gb")
        node.engine.settings["userns-remap"] = "nobody:nogroup"
        try:
            node.folder.mkdir()
            node.start()
            yield node
        finally:
            node.stop()
    shutil.rmtree(folder, ignore_errors=True)


def test_userns_remap(remapped: Node) -> None:
    """The first process, `docker exec`, and a MIG instance, whose nodes are made on the host and mounted."""
    with remapped.session("1G") as client:
        holds_to_1g(client)
    with remapped.container("1G") as name, remapped.exec_session(name) as client:
        holds_to_1g(client)
    remapped.until(lambda: not remapped.ps())
    remapped.gpuportion("node", "set-role", "--mig-enabled", "--gpu", "1")
    with remapped.session(None, options=["-e", "GPU_MIG=1g.10gb"]) as client:
        assert client.ask("mig")["cuda"] == ["NVIDIA H100 80GB HBM3 MIG 1g.10gb"]
    remapped.until(lambda: not remapped.ps())
