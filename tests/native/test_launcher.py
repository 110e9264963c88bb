"""What gpuportion-runtime becomes, with what it was given, as users get it and under the sanitizers."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import struct
import subprocess
import threading
from pathlib import Path

import pytest

from gpuportion import wire
from tests.support import native
from tests.support.launcher import REQUEST, Launcher, config, edit_it
from tests.support.scripted_daemon import ScriptedDaemon


@pytest.mark.parametrize(
    "words", [["state", "c1"], ["exec", "--process", "create", "c1"], ["features"], [], ["zzz"]]
)
def test_other_verbs_are_the_runtimes_at_once(launcher: Launcher, words: list[str]) -> None:
    """Arguments, environment and directory arrive as they were, without any daemon."""
    result = launcher.run("--root", "/r oot", *words, env={"LD_LIBRARY_PATH": "/opt", "EMPTY": ""})
    assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")
    seen = launcher.recorded()
    assert seen is not None
    assert seen["argv"] == [str(launcher.runtime), "--root", "/r oot", *words]
    expected = {**launcher.env, "LD_LIBRARY_PATH": "/opt", "EMPTY": ""}
    assert {key: value for key, value in seen["env"].items() if key != "LC_CTYPE"} == expected
    assert seen["cwd"] == str(launcher.bundle)


def test_it_is_the_same_process(launcher: Launcher) -> None:
    """execve, not fork: the engine's child is the runtime."""
    process = subprocess.Popen([launcher.program, "state", "c1"], env=launcher.env, cwd=launcher.bundle)
    assert process.wait(timeout=60) == 0
    seen = launcher.recorded()
    assert seen is not None
    assert seen["pid"] == process.pid


def test_descriptors_are_inherited_and_none_is_added(launcher: Launcher) -> None:
    """conmon hands pipes over by number; a grant's socket and files must not leak into the container."""
    launcher.write(config(REQUEST))
    pipe = os.pipe()
    with ScriptedDaemon(launcher.run_dir, edit_it):
        result = launcher.run("create", "c1", pass_fds=pipe)
    assert result.returncode == 0, result.stderr
    seen = launcher.recorded()
    assert seen is not None
    assert set(seen["fds"]) == {"0", "1", "2", *map(str, pipe)}
    for fd in pipe:
        os.close(fd)


def test_the_engines_death_signal_and_signal_state_are_kept(launcher: Launcher) -> None:
    """containerd-shim sets PDEATHSIG=9 on its runtime; ignored and blocked signals are the engine's."""
    launcher.write(config(REQUEST))

    def as_containerd_does() -> None:
        ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])

    with ScriptedDaemon(launcher.run_dir, edit_it):
        result = launcher.run("create", "c1", preexec_fn=as_containerd_does)
    assert result.returncode == 0, result.stderr
    seen = launcher.recorded()
    assert seen is not None
    assert seen["pdeathsig"] == signal.SIGKILL
    assert int(seen["blocked"], 16) >> (signal.SIGUSR1 - 1) & 1
    assert int(seen["ignored"], 16) >> (signal.SIGUSR2 - 1) & 1


@pytest.mark.parametrize("closed", [[0], [1], [2], [0, 1, 2]])
def test_closed_standard_descriptors_do_not_confuse_it(launcher: Launcher, closed: list[int]) -> None:
    """The text for stderr must never land in a file that was opened as descriptor 2."""
    launcher.write(config(REQUEST))

    def close_them() -> None:
        for fd in closed:
            os.close(fd)

    with ScriptedDaemon(launcher.run_dir, lambda _: wire.Message({}, b"GP101 no", status=wire.REFUSED)):
        process = subprocess.run(
            [launcher.program, "--log", str(launcher.log), "create", "c1"],
            env=launcher.env,
            cwd=launcher.bundle,
            preexec_fn=close_them,
            check=False,
        )
    assert process.returncode == 1
    assert [entry["msg"] for entry in launcher.logged()] == ["GP101 no"]
    assert json.loads(launcher.config.read_bytes()) == config(REQUEST)


def test_version_is_told_before_the_runtimes(launcher: Launcher) -> None:
    """One line of our own, then whatever the runtime says."""
    result = launcher.run("--version")
    assert result.stdout.decode().startswith("gpuportion-runtime ")
    seen = launcher.recorded()
    assert seen is not None
    assert seen["argv"][1:] == ["--version"]


def test_the_program_loads_nothing() -> None:
    """Static: no interpreter, no dynamic section, so LD_PRELOAD and LD_AUDIT mean nothing to it."""
    for program in (native.built("gpuportion-runtime", "shim"), native.built("gpuportion-hook", "hooks")):
        elf = Path(program).read_bytes()
        offset, size, count = struct.unpack_from("<Q", elf, 32)[0], *struct.unpack_from("<HH", elf, 54)
        kinds = {struct.unpack_from("<I", elf, offset + i * size)[0] for i in range(count)}
        assert kinds.isdisjoint({2, 3}), program  # PT_DYNAMIC, PT_INTERP


def test_a_delete_is_noted(launcher: Launcher) -> None:
    """The daemon hears of it, and the runtime does not wait for its answer."""
    hang = threading.Event()

    def never(_: wire.Message) -> None:
        hang.wait(60)

    with ScriptedDaemon(launcher.run_dir, never) as daemon:
        assert launcher.run("--root", "/r", "delete", "--force", "c1").returncode == 0
        assert launcher.recorded() is not None
        seen = daemon.wait_for(1)
        hang.set()
    assert [message.head for message in seen] == [
        {"v": 1, "op": "deleted", "root": "/r", "id": "c1", "last": True}
    ]


def test_a_delete_needs_no_daemon(launcher: Launcher) -> None:
    """None there, a dead one's socket, or one that accepts nobody: the runtime starts."""
    assert launcher.run("delete", "c1").returncode == 0
    launcher.run_dir.mkdir()
    with socket.socket(socket.AF_UNIX) as busy:
        busy.bind(str(launcher.run_dir / "gpuportiond.sock"))
        assert launcher.run("delete", "c1").returncode == 0
        busy.listen(0)
        for _ in range(4):
            assert launcher.run("delete", "c1").returncode == 0
    assert launcher.recorded() is not None


def test_a_delete_without_a_name_is_not_noted(launcher: Launcher) -> None:
    """There is nothing to say."""
    with ScriptedDaemon(launcher.run_dir, edit_it) as daemon:
        assert launcher.run("delete", "--force").returncode == 0
        assert daemon.seen == []
