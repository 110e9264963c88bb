"""Checkpoints as docker and podman make them: the grant goes with the container, and comes back with it, as another.

A container one of whose processes has opened CUDA can't be checkpointed so: it has a lock on the grant's ledger, and
criu takes no locks unasked. Where it's told to, the restore is refused.
"""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import Final

import pytest
from tests.native.debian import UnavailableError
from tests.support import criu, engines
from tests.support.engines import CLIENT_COMMAND, Podman
from tests.support.node import MB, PYTHON, Node
from tests.support.session import holds_to_1g

pytestmark = pytest.mark.containers

# A client that waits for a pipe of its own, and answers into a file.
APART: Final = """
import os, runpy
os.mkfifo("/tmp/asked")
os.dup2(os.open("/tmp/asked", os.O_RDWR), 0)
os.dup2(os.open("/tmp/answers", os.O_CREAT | os.O_WRONLY), 1)
runpy.run_path("/client.py", run_name="__main__")
"""
OPENED: Final = (PYTHON, "-c", APART)
LEFT: Final = "already exists"
"""docker's words while its containerd hasn't swept up what a checkpoint has left there: nothing was started yet."""


@pytest.fixture(scope="module")
def programs() -> Path:
    """Where a criu lies that runs here."""
    try:
        return criu.folder()
    except UnavailableError as why:
        pytest.skip(f"needs a criu that runs on this kernel: {why}")


def restored(docker: Node, name: str, checkpoint: str) -> subprocess.CompletedProcess[str]:
    """How it went."""
    while True:
        done = docker.docker("start", "--checkpoint", checkpoint, name, check=False)
        if LEFT not in done.stderr:
            return done
        time.sleep(0.5)


@pytest.fixture(scope="module")
def able(running_node: Node, programs: Path) -> Node:
    """The node, whose docker finds it, and restores containers that are none of ours."""
    running_node.programs.mkdir(exist_ok=True)
    (running_node.programs / "criu").symlink_to(programs / "criu")
    with running_node.container(None, options=["--runtime=runc"]) as name:
        running_node.docker("checkpoint", "create", name, "one")
        done = restored(running_node, name, "one")
    if done.returncode != 0:
        pytest.skip(f"needs a docker that restores what it checkpoints: {done.stderr}")
    return running_node


@pytest.fixture
def docker(able: Node, node: Node) -> Node:
    """It, empty."""
    return node


def test_docker_restores_a_container_with_a_grant_of_its_own(docker: Node) -> None:
    """As often as it likes: one grant while it runs, none meanwhile, and what is started in it is held."""
    with docker.container("1G") as name:
        tokens = [row["token"] for row in docker.ps()]
        for checkpoint in ("one", "two"):
            docker.docker("checkpoint", "create", name, checkpoint)
            docker.until(lambda: not docker.ps())
            done = restored(docker, name, checkpoint)
            assert done.returncode == 0, done.stderr
            (row,) = docker.ps()
            tokens.append(row["token"])
            assert row["container"] == docker.container_id(name) and len(row["pids"]) == 1
            with docker.exec_session(name) as client:
                holds_to_1g(client)
        assert len(set(tokens)) == 3


def test_docker_goes_on_where_it_can_not_checkpoint(docker: Node) -> None:
    """A process has opened CUDA: the container keeps running, with its grant and its memory."""
    with docker.container("1G", command=OPENED) as name:

        def opened() -> bool:
            return "SUCCESS" in docker.docker("exec", name, "cat", "/tmp/answers", check=False).stdout

        docker.until(opened)
        (before,) = docker.ps()
        done = docker.docker("checkpoint", "create", name, "one", check=False)
        assert done.returncode != 0 and "criu failed" in done.stderr
        (after,) = docker.ps()
        assert (after["token"], after["pids"]) == (before["token"], before["pids"])
        with docker.exec_session(name) as client:
            assert client.alloc(100 * MB) == "CUDA_SUCCESS"
            assert client.alloc(900 * MB) == "CUDA_ERROR_OUT_OF_MEMORY"


def test_docker_leaves_the_running_container_its_grant(docker: Node) -> None:
    """A checkpoint that doesn't stop it."""
    with docker.container("1G") as name:
        (before,) = docker.ps()
        docker.docker("checkpoint", "create", "--leave-running", name, "one")
        (after,) = docker.ps()
        assert (after["token"], after["pids"]) == (before["token"], before["pids"])


def test_a_restore_without_the_daemon_is_refused(docker: Node) -> None:
    """And succeeds once it's there again."""
    with docker.container("1G") as name:
        docker.docker("checkpoint", "create", name, "one")
        docker.until(lambda: not docker.ps())
        with docker.daemon_down():
            done = restored(docker, name, "one")
            assert done.returncode != 0 and "GP301" in done.stderr
        assert restored(docker, name, "one").returncode == 0
        assert len(docker.ps()) == 1


@pytest.fixture(scope="module")
def made(running_node: Node, root_folder: Path, short_folder: Path) -> Podman:
    """podman before runc, on a folder of its own."""
    if reason := engines.missing("podman", "conmon", "runc"):
        pytest.skip(reason)
    folder = short_folder / "podman-ck"
    folder.mkdir()
    podman = Podman(folder, root_folder, engines.launcher(folder, running_node, "runc"))
    if objection := podman.objection(engines.low_level(folder, "runc")):
        pytest.skip(objection)
    return podman


@pytest.fixture
def podman(made: Podman, node: Node, programs: Path, monkeypatch: pytest.MonkeyPatch) -> Podman:
    """It, which finds the criu; the node is empty."""
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return made


def test_podman_restores_a_container_with_a_grant_of_its_own(podman: Podman, node: Node) -> None:
    """None while it is away, and what is started in it afterwards is held."""
    name = f"gpuportion-test-{os.getpid()}-checkpoint"
    with podman.container(name, podman.options(memory="1G")):
        (before,) = node.ps()
        done = podman.done(podman.command("container", "checkpoint", name))
        assert done.returncode == 0, done.stderr
        node.until(lambda: not node.ps())
        done = podman.done(podman.command("container", "restore", name))
        assert done.returncode == 0, done.stderr
        (after,) = node.ps()
        assert after["token"] != before["token"] and len(after["pids"]) == 1
        with podman.session(podman.execute(name, *CLIENT_COMMAND)) as client:
            holds_to_1g(client)


def test_podman_restores_no_process_that_has_opened_cuda(podman: Podman, node: Node) -> None:
    """It could be checkpointed with its locks; a refusal says why it isn't restored, and nothing stays granted."""
    name = f"gpuportion-test-{os.getpid()}-opened"
    answers = podman.root / "tmp/answers"
    try:
        podman.done(podman.start(name, podman.options(memory="1G"), *OPENED))
        node.until(lambda: answers.exists() and "SUCCESS" in answers.read_text())
        done = podman.done(podman.command("container", "checkpoint", "--file-locks", name))
        assert done.returncode == 0, done.stderr
        node.until(lambda: not node.ps())
        for locks in (["--file-locks"], []):
            done = podman.done(podman.command("container", "restore", *locks, name))
            assert done.returncode != 0 and "a process in the checkpoint had opened CUDA" in done.stderr
            node.until(lambda: not node.ps())
    finally:
        for command in podman.remove(name):
            podman.done(command)
        for left in ("asked", "answers"):
            (podman.root / "tmp" / left).unlink(missing_ok=True)
