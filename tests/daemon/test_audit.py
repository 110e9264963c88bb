"""Who has GPU memory without a grant or beyond it: found by a real daemon, and ended where the rules say so."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.daemon import GB, MIB, Cgroup, Daemon, Sleeper
from tests.support.session import CudaSession

pytestmark = [
    pytest.mark.clients,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: cgroups and pid namespaces"),
]
CLIENT = str(Path(__file__).parents[1] / "support" / "cuda_session.py")
PYTHON = [sys.executable, CLIENT]
INNER = ["unshare", "--pid", "--fork", "--mount-proc", *PYTHON]
ID = "c0ffee" * 10 + "0123"


@pytest.fixture(autouse=True)
def cuda() -> None:
    pytest.importorskip("cuda.bindings", reason="needs the extra `clients`: cuda-bindings")


@pytest.fixture
def strict(tmp_path: Path) -> Iterator[Daemon]:
    """A daemon whose rules say `audit: stop`."""
    config = tmp_path / "config.yaml"
    config.write_text("audit: stop\n")
    with Daemon(tmp_path, options=["--config", str(config)]) as running:
        yield running


@pytest.fixture
def dockers() -> Iterator[Cgroup]:
    """A cgroup as docker makes it."""
    made = Cgroup(f"docker/{ID}")
    yield made
    made.remove()
    for folder in made.folders:
        with contextlib.suppress(OSError):
            folder.parent.rmdir()


def environment(daemon: Daemon) -> dict[str, str]:
    """Where a process finds the daemon's simulated driver: that itself, no library of ours before it."""
    sim = daemon.run_dir / "sim"
    return {**os.environ, "GPUPORTION_SIM_STATE": str(sim / "state"), "LD_LIBRARY_PATH": str(sim / "lib")}


def findings(daemon: Daemon) -> list[dict[str, Any]]:
    found = daemon.ask("ps").head["findings"]
    assert isinstance(found, list)
    return found


@contextlib.contextmanager
def granted(daemon: Daemon, client: CudaSession, cgroup: Cgroup, memory: str = "4G") -> Iterator[str]:
    """The client as a container with a grant that has got past the library; the grant's token."""
    made = daemon.create(f"GPU_MEMORY_LIMIT={memory}", id="train")
    pidfd = os.pidfd_open(client.pid)
    try:
        cgroup.add(client.pid)  # with a context already, so for a moment it may count as a stranger
        daemon.ask("confirm", token=made.token, pid=client.pid, fds=(pidfd,))
        yield made.token
    finally:
        os.close(pidfd)


def test_a_stranger_in_a_container_is_reported(daemon: Daemon) -> None:
    """In ps as a row, in its JSON, in the log with a code; gone from all lists when it ends; it is let live."""
    with CudaSession(INNER, env=environment(daemon)) as client:
        began = time.monotonic()
        assert client.alloc(3 * GB) == "CUDA_SUCCESS"
        daemon.until(lambda: bool(findings(daemon)))
        took = time.monotonic() - began
        (found,) = findings(daemon)
        ps = subprocess.run(
            [sys.executable, "-m", "gpuportion", "ps"],
            env=daemon.env,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        daemon.until(lambda: "GP401" in daemon.log.read_text())
        assert client.alloc(GB) == "CUDA_SUCCESS"
    assert took < 30, (
        "the period is a second; how long it took is printed by -rA, and no promise of a busy machine"
    )
    print(f"reported after {took:.2f} s")
    assert (found["kind"], found["engine"], found["action"]) == ("stranger", "namespace", "reported")
    assert found["held"] >= 3 * GB and found["processes"][0]["held"] == found["held"]
    assert "Without a grant, or beyond it:" in ps and found["processes"][0]["name"][:6] in ps
    daemon.until(lambda: not findings(daemon))


def test_a_stranger_with_the_hosts_pids_is_known_by_its_cgroup(daemon: Daemon, dockers: Cgroup) -> None:
    """`docker run --pid=host --gpus all`."""
    with CudaSession(PYTHON, env=environment(daemon)) as client:
        dockers.add(client.pid)
        assert client.alloc(GB) == "CUDA_SUCCESS"
        daemon.until(lambda: bool(findings(daemon)))
        (found,) = findings(daemon)
    assert (found["engine"], found["container"]) == ("docker", ID)
    assert [one["pid"] for one in found["processes"]] == [client.pid]


@pytest.mark.parametrize("tampered", [False, True], ids=["bypass", "tampered-ledger"])
def test_a_grant_that_is_exceeded_is_reported(daemon: Daemon, dockers: Cgroup, tampered: bool) -> None:
    """Whatever its ledger says: NVML's word counts. What is beyond it is granted to nobody."""
    with CudaSession(PYTHON, env=environment(daemon)) as client, granted(daemon, client, dockers) as token:
        if tampered:
            ledger = daemon.run_dir / "grants" / token / "ledger/ledger"
            with ledger.open("r+b") as file:
                file.write(b"\xff" * ledger.stat().st_size)
        assert client.alloc(6 * GB) == "CUDA_SUCCESS"
        daemon.until(lambda: [one["kind"] for one in findings(daemon)] == ["over"])
        (found,) = findings(daemon)
        assert daemon.gpus()[0]["unmanaged"] >= 2 * GB
        daemon.until(lambda: "GP402" in daemon.log.read_text())
    assert (found["kind"], found["name"] or found["container"]) == ("over", "train")
    assert found["held"] >= 6 * GB > found["limit"] == 4 * GB // MIB * MIB


def test_strangers_are_ended_where_the_rules_say_so(strict: Daemon) -> None:
    """SIGTERM by pidfd, and the log says why; the host's process beside it, with more, is not touched."""
    with CudaSession(PYTHON, env=environment(strict)) as own:
        assert own.alloc(20 * GB) == "CUDA_SUCCESS"
        with CudaSession(PYTHON, env=environment(strict)) as client, _cgroup_of(client):
            assert client.alloc(3 * GB) == "CUDA_SUCCESS"
            assert client.process.wait(timeout=60) == -signal.SIGTERM
        strict.until(lambda: not findings(strict))
        assert own.alloc(GB) == "CUDA_SUCCESS" and own.process.poll() is None
    log = strict.log.read_text()
    assert (
        f"GP403 process {client.pid}" in log and "SIGTERM" in log and "without a grant (audit: stop)" in log
    )
    assert f"process {own.pid}" not in log


@contextlib.contextmanager
def _cgroup_of(client: CudaSession) -> Iterator[None]:
    made = Cgroup(f"gpuportion-test-{os.getpid()}/docker/{ID}")
    made.add(client.pid)
    try:
        yield
    finally:
        client.process.wait(timeout=60)
        made.remove()
        for folder in made.folders:
            folder.parent.rmdir()
            folder.parent.parent.rmdir()


@pytest.mark.skipif(
    not os.environ.get("GPUPORTION_TEST_LONG"), reason="a long test: needs GPUPORTION_TEST_LONG=1"
)
def test_who_ignores_sigterm_is_killed(strict: Daemon) -> None:
    """The first process of a pid namespace does so by default."""
    with CudaSession(INNER, env=environment(strict)) as client:
        assert client.alloc(3 * GB) == "CUDA_SUCCESS"
        assert client.process.wait(timeout=60) != 0
    log = strict.log.read_text()
    assert log.index("was sent SIGTERM") < log.index("was sent SIGKILL")


def test_an_exceeded_grant_of_a_container_is_ended(strict: Daemon, dockers: Cgroup) -> None:
    """After it has lasted; the grant goes with its last process, and a neighbour within its own stays."""
    neighbour = strict.create("GPU_MEMORY_LIMIT=2G", id="other")
    with Sleeper() as other, CudaSession(PYTHON, env=environment(strict)) as client:
        strict.confirm(neighbour.token, other)
        with granted(strict, client, dockers):
            assert client.alloc(6 * GB) == "CUDA_SUCCESS"
            assert client.process.wait(timeout=60) == -signal.SIGTERM
            strict.until(lambda: [row["container"] for row in strict.ps()] == ["other"])
        assert other.process.poll() is None
    assert "its grant is 4.00 GB (audit: stop)" in strict.log.read_text()


HOST_GRANT = """
import json, os, socket, sys
from gpuportion import wire
sock = socket.socket(socket.AF_UNIX)
sock.connect(sys.argv[1])
head = {"v": 1, "op": "exec", "request": {"GPU_MEMORY_LIMIT": "1G"}, "argv0": "own", "mounts": False}
wire.send(sock, wire.Message(head, b"", wire.REQUEST, (os.pidfd_open(os.getpid()),)))
assert wire.receive(sock).status == wire.OK
os.execv(sys.executable, [sys.executable, sys.argv[2]])
"""


def test_a_process_of_the_host_is_never_ended(strict: Daemon) -> None:
    """Though it has more than the portion that it asked for: it is reported, for longer than would do elsewhere."""
    command = [sys.executable, "-c", HOST_GRANT, str(strict.run_dir / "gpuportiond.sock"), CLIENT]
    with CudaSession(command, env=environment(strict)) as client:
        assert client.alloc(3 * GB) == "CUDA_SUCCESS"
        strict.until(lambda: any(one["since_s"] > 7 for one in findings(strict)))
        (found,) = findings(strict)
        assert (found["kind"], found["action"]) == ("over", "reported")
        assert client.alloc(GB) == "CUDA_SUCCESS"
    assert "GP403" not in strict.log.read_text()


def test_a_grant_that_was_lowered_by_force_is_no_finding(strict: Daemon, dockers: Cgroup) -> None:
    """`update --force` ends nothing, also after a restart of the daemon."""
    with (
        CudaSession(PYTHON, env=environment(strict)) as client,
        granted(strict, client, dockers, memory="8G"),
    ):
        assert client.alloc(6 * GB) == "CUDA_SUCCESS"
        strict.until(lambda: bool(strict.gpus()[0]["used"] >= 6 * GB))
        strict.ask("update", container="train", memory="1G", force=True)
        strict.stop()
        strict.start()
        strict.until(lambda: bool(strict.gpus()[0]["unmanaged"] >= 4 * GB))
        with CudaSession(INNER, env=environment(strict)) as later:
            later.alloc(GB)
            strict.until(
                lambda: any(one["kind"] == "stranger" and one["since_s"] > 2 for one in findings(strict))
            )
            assert {one["kind"] for one in findings(strict)} == {"stranger"}
        assert client.alloc(10**6) == "CUDA_SUCCESS"


def test_findings_are_json(daemon: Daemon) -> None:
    """`gpuportion ps --json` has them beside the grants."""
    done = subprocess.run(
        [sys.executable, "-m", "gpuportion", "ps", "--json"],
        env=daemon.env,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == {"findings": [], "grants": []}
