"""A docker of our own: it works, keeps to itself, and leaves nothing."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from gpuportion.cli import rootfs
from gpuportion.cli.children import remove_folder
from gpuportion.cli.private_dockerd import PrivateDocker
from gpuportion.errors import GpuportionError

PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
pytestmark = [
    pytest.mark.containers,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: starts dockerd"),
    pytest.mark.skipif(shutil.which("dockerd", path=PATH) is None, reason="needs dockerd"),
]


@pytest.fixture
def folder() -> Iterator[str]:
    """Short: a socket's path has 107 bytes."""
    path = f"/tmp/gpuportion-d{os.getpid()}"
    yield path
    remove_folder(path)


def processes_naming(text: str) -> list[int]:
    """Of other processes, zombies not counted."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if text.encode() in command and int(pid) != os.getpid():
            found.append(int(pid))
    return found


def until_gone(text: str) -> None:
    deadline = time.monotonic() + 60
    while processes_naming(text):
        assert time.monotonic() < deadline, f"still there: {processes_naming(text)}"
        time.sleep(0.05)


def write_nonsense(out: IO[bytes]) -> None:
    for _ in range(999):
        out.write(b"no tar" * 4096)


def test_it_runs_containers_of_an_imported_image_and_leaves_nothing(folder: str) -> None:
    """With a runtime that it was told of. What still runs is ended; no process, mount or file stays."""
    runc = shutil.which("runc", path=PATH)
    assert runc is not None
    with PrivateDocker(folder, runtimes={"plain": runc}) as engine:
        engine.import_image("img", lambda out: rootfs.write(out, clients=[]), changes=["ENV A=b"])
        words = ("--network=none", "--runtime=plain", "img")
        done = engine.run("run", "--rm", "--user=1234", *words, "sh", "-c", "echo $A; id -u")
        assert done.stdout == "b\n1234\n"
        engine.run("run", "-d", *words, "sleep", "600")
        assert processes_naming(folder)
    until_gone(folder)
    assert not os.path.exists(folder)
    assert folder not in Path("/proc/mounts").read_text()


def test_a_dockerd_that_cannot_start_says_why_and_leaves_nothing(folder: str) -> None:
    """Its last words are in the sentence."""
    with pytest.raises(GpuportionError, match="no-such-driver") as caught:
        PrivateDocker(folder, settings={"storage-driver": "no-such-driver"}).__enter__()
    assert caught.value.code == "GP306"
    until_gone(folder)
    assert not os.path.exists(folder)


def test_an_image_that_docker_refuses_is_said(folder: str) -> None:
    """Also while it is still being written."""
    with PrivateDocker(folder) as engine, pytest.raises(GpuportionError, match="docker import bad"):
        engine.import_image("bad", write_nonsense)


def test_both_daemons_die_with_their_starter(folder: str) -> None:
    """Even when it is killed and can clean up nothing."""
    code = f"""
        import time
        from gpuportion.cli.private_dockerd import PrivateDocker
        with PrivateDocker({folder!r}):
            print("up", flush=True)
            time.sleep(600)
    """
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
    )
    with child:
        assert child.stdout is not None and child.stdout.readline() == b"up\n"
        child.send_signal(signal.SIGKILL)
    until_gone(folder)
