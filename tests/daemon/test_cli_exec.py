"""`gpuportion exec` against a daemon that answers what it is told to: a real socket, real namespaces."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.scripted_daemon import ScriptedDaemon

from gpuportion import wire

REPORT = """
import json, os, sys
print(json.dumps({
    "pid": os.getpid(),
    "fds": sorted(os.listdir("/proc/self/fd")),
    "env": dict(os.environ),
    "target": open(sys.argv[1]).read(),
    "words": sys.argv[2:],
}))
sys.exit(7)
"""
SYS_ADMIN = 21


def may_mount() -> bool:
    """By the kernel's word, not by that of the code under test."""
    (line,) = [
        line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapEff")
    ]
    return bool(int(line.split()[1], 16) >> SYS_ADMIN & 1)


needs_namespaces = pytest.mark.skipif(
    not may_mount(), reason="needs a private mount namespace: CAP_SYS_ADMIN"
)


class Host:
    """A folder with a file that a grant would mount over."""

    def __init__(self, folder: Path) -> None:
        self.run_dir = folder / "run"
        self.target = folder / "target"
        self.target.write_text("the driver's")
        self.source = folder / "source"
        self.source.write_text("ours")
        self.mounts = [{"source": str(self.source), "target": str(self.target)}]

    def answer(self, request: wire.Message) -> wire.Message:
        env = {"LD_LIBRARY_PATH": "/granted", "GRANTED": "yes"}
        mounts = self.mounts if request.head["mounts"] else []
        return wire.Message({"token": "0" * 32, "folder": "/granted", "env": env, "mounts": mounts})

    def exec(
        self, *words: str, program: Callable[[list[str]], list[str]] = lambda words: words
    ) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "gpuportion", "exec", *words]
        env = {
            **os.environ,
            "PYTHONPATH": ":".join(sys.path),
            "GPUPORTION_RUN_DIR": str(self.run_dir),
            "LD_LIBRARY_PATH": "/mine",
        }
        return subprocess.run(
            program(command), env=env, capture_output=True, text=True, check=False, timeout=60
        )

    def report(self, *options: str) -> list[str]:
        return [*options, "--", sys.executable, "-c", REPORT, str(self.target), "a b", "--gpu-memory"]


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def read(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.stdout, done.stderr
    report = json.loads(done.stdout)
    assert isinstance(report, dict)
    return report


def test_the_command_becomes_the_process_that_has_the_grant(host: Host) -> None:
    """The pidfd is of the process that runs the command; words, descriptors and status are its own."""
    seen: dict[str, Any] = {}

    def answer(request: wire.Message) -> wire.Message:
        fdinfo = Path(f"/proc/self/fdinfo/{request.fds[0]}").read_text()
        seen.update(request.head, pid=int(fdinfo.split("Pid:")[1].split()[0]))
        return host.answer(request)

    with ScriptedDaemon(host.run_dir, answer):
        done = host.exec(*host.report("--gpu-memory", "1G", "--gpu-select=0"))
    report = read(done)
    assert done.returncode == 7
    assert seen["op"] == "exec" and seen["argv0"] == os.path.basename(sys.executable)
    assert seen["request"] == {"GPU_MEMORY_LIMIT": "1G", "GPU_SELECT": "0"}
    assert seen["pid"] == report["pid"]
    assert report["words"] == ["a b", "--gpu-memory"]
    assert len(report["fds"]) == 4, "0, 1, 2 and the listing's own: no socket, no pidfd"
    assert report["env"]["GRANTED"] == "yes" and report["env"]["LD_LIBRARY_PATH"] == "/granted:/mine"


@needs_namespaces
def test_what_is_mounted_is_seen_by_the_command_alone(host: Host) -> None:
    """The rest of the machine keeps the driver's file; stderr says which way it was."""
    with ScriptedDaemon(host.run_dir, host.answer):
        done = host.exec(*host.report("--gpu-memory=1G"))
    assert read(done)["target"] == "ours"
    assert host.target.read_text() == "the driver's"
    assert str(host.target) not in Path("/proc/self/mountinfo").read_text()
    assert done.stderr == "gpuportion: held in a private mount namespace\n"


@needs_namespaces
def test_nothing_gets_out_where_mounts_are_shared(host: Host) -> None:
    """systemd makes every mount of a host shared: what is mounted in a copy would appear in the original."""
    script = 'mount --make-rshared /; "$@" > /dev/null; cat "$0"'
    sharing = ["unshare", "--mount", "--propagation=private", "sh", "-c", script, str(host.target)]
    with ScriptedDaemon(host.run_dir, host.answer):
        done = host.exec(*host.report("--gpu-memory=1G"), program=lambda words: [*sharing, *words])
    assert done.stderr == "gpuportion: held in a private mount namespace\n"
    assert done.stdout == "the driver's"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: to give it up")
def test_without_the_right_to_mount_the_loader_is_pointed_to_the_folder(host: Host, tmp_path: Path) -> None:
    """The daemon is told so before it grants, and the user what that means."""
    without = ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin", "--"]
    with ScriptedDaemon(host.run_dir, host.answer) as daemon:
        done = host.exec(*host.report("--gpu-memory=1G"), program=lambda words: [*without, *words])
        (request,) = daemon.wait_for(1)
    assert request.head["mounts"] is False
    assert read(done)["target"] == "the driver's"
    assert "a program that clears them is not held" in done.stderr


def test_quiet_says_nothing(host: Host) -> None:
    """For scripts that read stderr."""
    with ScriptedDaemon(host.run_dir, host.answer):
        done = host.exec("--gpu-memory=1G", "--quiet", "true")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_refusal_is_said_and_nothing_runs(host: Host) -> None:
    """Exit status 1."""
    with ScriptedDaemon(host.run_dir, lambda _: wire.Message({}, b"GP101 no room\nTry less.", wire.REFUSED)):
        done = host.exec(*host.report("--gpu-memory=1G"))
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "GP101 no room\nTry less.\n")


def test_without_a_daemon_nothing_runs(host: Host) -> None:
    """Never without a limit."""
    done = host.exec(*host.report("--gpu-memory=1G"))
    assert (done.returncode, done.stdout) == (1, "")
    assert "GP301" in done.stderr


@needs_namespaces
def test_a_mount_that_fails_is_said_and_nothing_runs(host: Host) -> None:
    """Half of a portion is none."""
    host.mounts = [{"source": str(host.source), "target": "/nonexistent"}]
    with ScriptedDaemon(host.run_dir, host.answer):
        done = host.exec(*host.report("--gpu-memory=1G"))
    assert (done.returncode, done.stdout) == (1, "")
    assert "GP306 the private mount namespace failed: mount /nonexistent" in done.stderr
