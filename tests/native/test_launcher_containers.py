"""The launcher before the real runc and crun, with real containers; the daemon is a script."""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gpuportion import wire
from gpuportion.hooks import stages
from tests.support import native
from tests.support.bundle import Bundle, hides_hybrid, low_level, runs_containers, spec
from tests.support.launcher import REQUEST
from tests.support.scripted_daemon import ScriptedDaemon

TOKEN = "fedcba9876543210" * 2


class Containers:
    """A bundle, and the launcher before one low-level runtime."""

    def __init__(self, folder: Path, runtime: str) -> None:
        self.bundle = Bundle(folder, hides_hybrid(runtime))
        self.runtime = runtime
        self.launcher = native.built("gpuportion-runtime", "shim")
        self.run_dir = folder / "run"
        self.log = folder / "log.json"
        self.name = f"gpuportion-test-{uuid.uuid4().hex[:12]}"
        self.names = {self.name}

    def call(self, *words: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
        env = {
            "GPUPORTION_RUNTIME": self.runtime,
            "GPUPORTION_RUN_DIR": str(self.run_dir),
            "GPUPORTION_WAIT_S": "1",
        }
        return self.bundle.call(
            self.launcher, "--log", str(self.log), "--log-format", "json", *words, env=env, **options
        )

    def bare(self, *words: str) -> subprocess.CompletedProcess[bytes]:
        return self.bundle.call(self.runtime, *words)

    def exists(self, name: str) -> bool:
        return self.bare("state", name).returncode == 0

    def pid(self) -> int:
        return int(json.loads(self.bare("state", self.name).stdout)["pid"])

    def edit(self, message: wire.Message) -> wire.Message:
        """What the daemon does to a spec, as far as a runtime can tell: a variable and two hooks."""
        if message.head["op"] != "create":
            return wire.Message({})
        text = message.body[: len(message.body) - message.head["preload_bytes"]]
        edited = json.loads(text)
        edited["process"]["env"].append("EDITED=yes")
        edited["hooks"] = {
            stage: [entry]
            for stage, entry in stages.entries(
                native.built("gpuportion-hook", "hooks"),
                socket=str(self.run_dir / "gpuportiond.sock"),
                token=TOKEN,
                container=message.head["id"],
            ).items()
        }
        return wire.Message({}, json.dumps(edited).encode())

    def end(self) -> None:
        for name in self.names:
            self.bare("delete", "--force", name)


@pytest.fixture(params=["runc", "crun"])
def containers(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Containers]:
    runtime, why = low_level(request.param), runs_containers()
    if why is not None:
        pytest.skip(why)
    if runtime is None:
        pytest.skip(f"needs {request.param}")
    made = Containers(tmp_path, runtime)
    yield made
    made.end()


def test_a_container_without_a_request_runs_as_with_the_bare_runtime(containers: Containers) -> None:
    """Same output, same exit code, config.json byte-identical, and there is no daemon."""
    text = containers.bundle.write(spec("env", env=["A=b", "MY_GPU_COUNT=1"]))
    bare = containers.bare("run", containers.name)
    ours = containers.call("run", containers.name)
    assert (ours.returncode, ours.stdout, ours.stderr) == (bare.returncode, bare.stdout, bare.stderr)
    assert b"A=b\n" in ours.stdout
    assert containers.bundle.config.read_bytes() == text
    assert not containers.log.exists() or containers.log.read_bytes() == b""


def test_a_grant_lives_as_the_container_does(containers: Containers) -> None:
    """create edits and confirms with a pidfd of init; delete notes; the pidfd saw it end."""
    containers.bundle.write(spec("wait", env=[REQUEST]))
    pid_file = containers.run_dir.parent / "pid"
    with ScriptedDaemon(containers.run_dir, containers.edit) as daemon:
        created = containers.call("create", "--pid-file", str(pid_file), containers.name)
        assert created.returncode == 0, created.stderr
        assert [message.head["op"] for message in daemon.seen] == ["create", "confirm"]
        confirm = daemon.seen[1]
        pid = int(pid_file.read_text())
        assert confirm.head == {"v": 1, "op": "confirm", "token": TOKEN, "pid": pid, "last": True}
        assert containers.pid() == confirm.head["pid"]
        (pidfd,) = confirm.fds
        assert f"Pid:\t{confirm.head['pid']}\n" in Path(f"/proc/self/fdinfo/{pidfd}").read_text()
        assert containers.call("start", containers.name).returncode == 0
        inside = containers.call("exec", containers.name, "/probe", "cat", "/proc/1/environ")
        assert b"EDITED=yes" in inside.stdout
        assert select.select([pidfd], [], [], 0)[0] == []
        assert containers.call("delete", "--force", containers.name).returncode == 0
        assert select.select([pidfd], [], [], 30)[0] == [pidfd]
        seen = daemon.wait_for(3)
    assert [message.head["op"] for message in seen[2:]] == ["deleted"]
    assert not containers.exists(containers.name)


def test_a_refused_container_never_exists(containers: Containers) -> None:
    """The refusal is the last error of the log, as containerd looks for it; nothing is left to delete."""
    text = containers.bundle.write(spec("env", env=[REQUEST]))
    with ScriptedDaemon(containers.run_dir, lambda _: wire.Message({}, b"GP101 no room", wire.REFUSED)):
        result = containers.call("create", containers.name)
    assert (result.returncode, result.stdout, result.stderr) == (1, b"", b"GP101 no room\n")
    assert json.loads(containers.log.read_text())["msg"] == "GP101 no room"
    assert not containers.exists(containers.name)
    assert containers.bundle.config.read_bytes() == text


def test_without_a_daemon_a_request_starts_nothing(containers: Containers) -> None:
    """GP301; a container that asks for nothing still runs."""
    containers.bundle.write(spec("env", env=[REQUEST]))
    result = containers.call("run", containers.name)
    assert (result.returncode, result.stdout) == (1, b"")
    assert json.loads(containers.log.read_text())["msg"].startswith("GP301 ")
    assert not containers.exists(containers.name)
    containers.bundle.write(spec("env"))
    assert containers.call("run", containers.name).returncode == 0


def test_a_refused_confirmation_fails_the_container(containers: Containers) -> None:
    """runc shows the hook's message, crun only that it failed; nothing is left of the container."""

    def too_late(message: wire.Message) -> wire.Message:
        if message.head["op"] == "confirm":
            return wire.Message({}, b"GP305 the reservation has ended", wire.REFUSED)
        return containers.edit(message)

    containers.bundle.write(spec("env", env=[REQUEST]))
    with ScriptedDaemon(containers.run_dir, too_late):
        result = containers.call("run", containers.name)
        containers.call("delete", "--force", containers.name)
    assert result.returncode != 0
    assert b"PATH=" not in result.stdout
    if Path(containers.runtime).name == "runc":
        assert "GP305 the reservation has ended" in containers.log.read_text()
    assert not containers.exists(containers.name)


@pytest.mark.parametrize("name", ["create", "delete", "run"])
def test_a_container_may_be_called_like_a_verb(containers: Containers, name: str) -> None:
    """Its name is no verb, and its request is seen."""
    containers.names.add(name)
    containers.bundle.write(spec("env", env=[REQUEST]))
    with ScriptedDaemon(containers.run_dir, containers.edit) as daemon:
        result = containers.call("run", "--bundle", str(containers.bundle.folder), name)
        assert daemon.seen[0].head["id"] == name
    assert b"EDITED=yes\n" in result.stdout, result.stderr


def test_preserved_descriptors_reach_the_container_and_no_others(containers: Containers) -> None:
    """With a grant and without: stdio and what the engine passes on."""
    extra = [os.open("/dev/null", os.O_RDONLY) for _ in range(2)]

    def only_these() -> None:
        os.dup2(extra[0], 203)
        os.dup2(extra[1], 204)
        os.dup2(203, 3)
        os.dup2(204, 4)
        os.set_inheritable(3, True)
        os.set_inheritable(4, True)
        os.closerange(5, 256)

    for env in ([], [REQUEST]):
        containers.bundle.write(spec("fds", env=env))
        with ScriptedDaemon(containers.run_dir, containers.edit):
            result = containers.call(
                "run", "--preserve-fds", "2", containers.name, preexec_fn=only_these, close_fds=False
            )
        assert result.stdout.split() == [b"0", b"1", b"2", b"3", b"4"], result.stderr
    for fd in extra:
        os.close(fd)


def test_the_console_goes_to_its_socket(containers: Containers) -> None:
    """--console-socket: the engine gets the terminal, and what the container writes."""
    containers.bundle.write(spec("env", env=[REQUEST], terminal=True))
    path = str(containers.run_dir.parent / "console.sock")
    with socket.socket(socket.AF_UNIX) as listener, ScriptedDaemon(containers.run_dir, containers.edit):
        listener.bind(path)
        listener.listen()
        created = containers.call("create", "--console-socket", path, containers.name)
        assert created.returncode == 0, created.stderr
        connection, _ = listener.accept()
        with connection:
            _, fds, _, _ = socket.recv_fds(connection, 4096, 1)
        assert containers.call("start", containers.name).returncode == 0
        assert b"EDITED=yes\r\n" in read_terminal(fds[0])


def read_terminal(fd: int) -> bytes:
    got = b""
    try:
        while piece := os.read(fd, 4096):
            got += piece
    except OSError:  # EIO: the other end is closed
        pass
    finally:
        os.close(fd)
    return got


def test_the_images_preload_comes_from_the_real_root(containers: Containers) -> None:
    """Read before the container exists, from the bundle's root filesystem."""
    containers.bundle.write(spec("env", env=[REQUEST]))
    (containers.bundle.folder / "rootfs/etc/ld.so.preload").write_text("/lib/libjemalloc.so\n")
    with ScriptedDaemon(containers.run_dir, containers.edit) as daemon:
        assert containers.call("run", containers.name).returncode == 0
        assert daemon.seen[0].body.endswith(b"}/lib/libjemalloc.so\n")


def test_an_empty_environment_is_enough(containers: Containers) -> None:
    """podman's start and delete have no PATH; the runtime is found, and finds its containers."""
    name = Path(containers.runtime).name
    done = subprocess.run(
        [containers.launcher, "--version"], env={}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()[:2]
    assert first.startswith("gpuportion-runtime ")
    if low_level("runc") is None or name == "runc":
        assert second.startswith(f"{name} version")


def test_other_verbs_answer_as_the_bare_runtime(containers: Containers) -> None:
    """state, list and a mistake: the same words, the same exit code."""
    containers.bundle.write(spec("wait"))
    assert containers.call("create", containers.name).returncode == 0
    for words in (("state", containers.name), ("list", "-q")):
        assert containers.call(*words).stdout == containers.bare(*words).stdout
    assert containers.call("state", "none").returncode == containers.bare("state", "none").returncode != 0
