"""Whatever fails or is killed between a reservation and the end of a container: the low-level runtime says what it
says without us, and the grant goes when the container is empty, not before and not never.

runc and crun themselves, with no engine; a grant fills the whole GPU, so that a leak or a second one shows.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support import bundle
from tests.support.daemon import MIB, Daemon
from tests.support.oci import OURS, Oci, hook, shell

from gpuportion.allocator.fault_points import VARIABLE
from gpuportion.errors import RefusedError

pytestmark = pytest.mark.containers


@pytest.fixture(scope="module")
def running_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A reservation lives as long as its creator here: no test may pass because of a timeout."""
    if why := bundle.runs_containers():
        pytest.skip(why)
    daemon = Daemon(tmp_path_factory.mktemp("d"), options=["--reservation-timeout", "3600"])
    with daemon:
        yield daemon


@pytest.fixture(params=["runc", "crun"])
def oci(request: pytest.FixtureRequest, running_daemon: Daemon, tmp_path: Path) -> Iterator[Oci]:
    """Leaves nothing: no row, page, mount, cgroup, or file in the bundle."""
    if bundle.low_level(request.param) is None:
        pytest.skip(f"needs {request.param}")
    made = Oci(tmp_path / "oci", request.param, running_daemon)
    yield made
    if running_daemon.process is None or running_daemon.process.poll() is not None:
        running_daemon.start()  # a test that failed half way
    made.delete()
    running_daemon.until(lambda: is_empty(running_daemon))
    assert made.leftovers() == []


def is_empty(daemon: Daemon) -> bool:
    mounts = Path("/proc/mounts").read_text()
    return not daemon.ps() and not daemon.folders() and f"{daemon.run_dir}/grants" not in mounts


def whole(daemon: Daemon) -> str:
    return f"GPU_MEMORY_LIMIT={daemon.gpus()[0]['free'] // MIB}Mi"


@contextlib.contextmanager
def signal_of_end(pid: int) -> Iterator[Callable[[], object]]:
    """Waits for the end of this process, whoever reaps it."""
    pidfd = os.pidfd_open(pid)
    try:
        yield lambda: select.select([pidfd], [], [], 60)
    finally:
        os.close(pidfd)


def grants_made(daemon: Daemon) -> int:
    return daemon.log.read_text().count("gpuportiond: granted ")


FALSE = {"path": "/bin/false"}
SECCOMP = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_NONE"}]}
BROKEN: dict[str, dict[str, Any]] = {
    "missing-program": {"process": {"args": ["/does-not-exist"]}},
    "missing-mount": {
        "mounts": [{"destination": "/data", "type": "bind", "source": "/does-not-exist", "options": ["bind"]}]
    },
    "bad-seccomp": {"linux": {"seccomp": SECCOMP}},
    "bad-namespace": {"linux": {"namespaces": [{"type": "network", "path": "/proc/1/ns/none"}]}},
    "too-little-memory": {"linux": {"resources": {"memory": {"limit": 4096}}}},
    "hook-before": {"hooks": {"prestart": [FALSE]}},
    "hook-behind": {"hooks": {"createRuntime": [FALSE]}},
    "hook-inside": {"hooks": {"createContainer": [FALSE]}},
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
def test_a_create_that_fails_behind_us_fails_as_without_us(oci: Oci, broken: dict[str, Any]) -> None:
    """The same exit code and state; the grant is gone before the engine has deleted anything."""
    oci.write(request="", **broken)
    bare, state = oci.bare("create", oci.id), oci.state()
    oci.bare("delete", "--force", oci.id)
    oci.write(request=whole(oci.daemon), **broken)
    before = grants_made(oci.daemon)
    ours = oci.create()
    assert grants_made(oci.daemon) == before + 1, "it failed before our reservation"
    assert bare.returncode != 0
    # crun's code depends on which of its processes is the first to tell.
    codes = {bare.returncode} if oci.name == "runc" else {1, 255}
    assert bare.returncode in codes and ours.returncode in codes
    assert oci.state() == state
    assert not oci.pids()
    oci.daemon.until(lambda: is_empty(oci.daemon))


# Our hook

HOOKS = {
    "fails": f"{OURS}.update(path='/bin/false', args=['false'])",
    "is-killed": f"{OURS}.update(path='/bin/sh', args=['sh', '-c', 'kill -9 $$'])",
    "is-missing": f"{OURS}.update(path='/does-not-exist')",
    "times-out": f"{OURS}.update(path='/bin/sleep', args=['sleep', '60'], timeout=1)",
    "has-another-token": f"{OURS}['args'][5] = 'f' * 32",
}


@pytest.mark.parametrize("edit", HOOKS.values(), ids=HOOKS)
def test_a_hook_that_does_not_confirm_fails_the_container(oci: Oci, edit: str) -> None:
    """Nothing of it runs, and the reservation goes with the runtime that was creating it."""
    oci.write(request=whole(oci.daemon))
    assert oci.create(oci.edited_by(edit)).returncode != 0
    assert oci.state() is None and not oci.pids()
    oci.daemon.until(lambda: is_empty(oci.daemon))
    oci.delete()
    oci.write(request=whole(oci.daemon))
    oci.start()


def test_a_daemon_that_dies_before_the_hook_asks_fails_the_container(oci: Oci) -> None:
    """The hook says how to start it (crun shows no hook's words); the next one finds the reservation over."""
    assert oci.daemon.process is not None
    oci.write(
        hooks={"prestart": [shell("kill -9 $1; while [ -e /proc/$1/fd/0 ]; do :; done", oci.daemon.pid)]}
    )
    assert oci.create().returncode != 0
    if oci.name == "runc":
        # Its socket may outlive its descriptors by a moment: then it takes the question and answers nothing.
        assert "systemctl start gpuportiond" in oci.said() or "without a whole answer" in oci.said()
    assert oci.state() is None and not oci.pids()
    oci.daemon.process.wait()
    oci.daemon.start()
    assert is_empty(oci.daemon)


def test_a_hook_whose_daemon_hangs_is_ended_by_its_timeout(oci: Oci) -> None:
    """A confirm that nobody waits for any more makes nothing active when it is read."""
    oci.write(hooks={"prestart": [hook("/bin/kill", "-STOP", str(oci.daemon.pid))]})
    try:
        done = oci.create(oci.edited_by(f"{OURS}['timeout'] = 1"))
    finally:
        os.kill(oci.daemon.pid, signal.SIGCONT)
    assert done.returncode != 0
    assert oci.state() is None and not oci.pids()
    oci.daemon.until(lambda: is_empty(oci.daemon))


def test_a_confirm_after_the_end_of_the_reservation_fails_the_container(tmp_path: Path) -> None:
    """By then the memory can be somebody else's. runc shows the sentence."""
    if why := bundle.runs_containers():
        pytest.skip(why)
    with Daemon(tmp_path, options=["--reservation-timeout", "0.3"]) as daemon:
        for name in filter(bundle.low_level, ("runc", "crun")):
            oci = Oci(tmp_path / name, name, daemon)
            oci.write(hooks={"prestart": [hook("/bin/sleep", "0.6")]})
            assert oci.create().returncode != 0
            if name == "runc":
                assert "GP305 the reservation of this container" in oci.said()
            oci.delete()
            assert is_empty(daemon) and oci.leftovers() == []


# Who dies

KILLS_PARENT = shell("kill -9 $PPID; sleep 1")


@pytest.mark.parametrize("stage", ["prestart", "createRuntime"])
def test_a_runtime_that_is_killed_while_it_creates(oci: Oci, stage: str) -> None:
    """Before our hook the reservation goes with it, behind it the half-made container's process ends."""
    oci.write(request=whole(oci.daemon), hooks={stage: [KILLS_PARENT]})
    assert oci.create().returncode == -signal.SIGKILL
    oci.daemon.until(
        lambda: is_empty(oci.daemon) and not oci.pids()
    )  # the hook itself sleeps on for a second
    oci.delete()
    oci.write(request=whole(oci.daemon))
    oci.start()


def test_a_launcher_that_is_killed_while_it_waits_leaves_nothing(oci: Oci) -> None:
    """The engine gave up; the daemon answers to nobody."""
    oci.write()
    os.kill(oci.daemon.pid, signal.SIGSTOP)
    try:
        launcher = oci.spawn("create", oci.id)
        oci.daemon.until(lambda: ") S " in Path(f"/proc/{launcher.pid}/stat").read_text())
        launcher.kill()
        launcher.wait()
    finally:
        os.kill(oci.daemon.pid, signal.SIGCONT)
    oci.daemon.until(lambda: is_empty(oci.daemon))
    assert oci.state() is None


def test_the_grant_ends_with_the_last_process_not_with_the_first(oci: Oci) -> None:
    """Without a pid namespace others outlive init. They hold GPU memory, so the grant is theirs."""
    namespaces = [{"type": kind} for kind in ("mount", "ipc", "uts", "network")]
    oci.write(request=whole(oci.daemon), linux={"namespaces": namespaces})
    oci.start()
    first = oci.pid()
    assert oci.call("exec", "--detach", oci.id, "/probe", "wait").returncode == 0
    (second,) = set(oci.pids()) - {first}
    with signal_of_end(first) as ended:
        os.kill(first, signal.SIGKILL)
        ended()
    assert [row["state"] for row in oci.daemon.ps()] == ["active"]
    with pytest.raises(RefusedError, match="GP101"):
        oci.daemon.create("GPU_MEMORY_LIMIT=1G", id="another")
    os.kill(second, signal.SIGKILL)
    oci.daemon.until(lambda: is_empty(oci.daemon))


def test_a_process_of_the_container_that_is_killed_ends_nothing(oci: Oci) -> None:
    """One that joined by exec; then init, and with it the container."""
    oci.write()
    oci.start()
    assert oci.call("exec", "--detach", oci.id, "/probe", "wait").returncode == 0
    first = oci.pid()
    (second,) = set(oci.pids()) - {first}
    with signal_of_end(second) as ended:
        os.kill(second, signal.SIGKILL)
        ended()
    assert [row["state"] for row in oci.daemon.ps()] == ["active"]
    os.kill(first, signal.SIGKILL)
    oci.daemon.until(lambda: is_empty(oci.daemon))


DYING = {
    # where the daemon dies: whether the container is there
    "reserved": False,
    "pages-made": False,
    "answering:1": False,
    "confirming": False,
    "confirmed": False,
    "answering:2": False,
    "answered:2": True,
}


@pytest.mark.parametrize(("place", "runs"), DYING.items(), ids=DYING)
def test_a_daemon_that_dies_at_any_step_of_a_create(oci: Oci, place: str, runs: bool) -> None:
    """There is a container with its grant, or neither; and then it can be created."""
    request = whole(oci.daemon)
    oci.write(request=request)
    oci.daemon.stop()
    oci.daemon.env[VARIABLE] = place
    oci.daemon.start_unasked()
    del oci.daemon.env[VARIABLE]
    done = oci.create()
    assert oci.daemon.process is not None and oci.daemon.process.wait(timeout=60) == -signal.SIGKILL
    assert (done.returncode == 0) is runs
    assert (oci.state() is not None) is runs
    oci.daemon.start()
    if not runs:
        oci.daemon.until(lambda: is_empty(oci.daemon))
        assert not oci.pids()
        oci.delete()
        oci.write(request=request)
        assert oci.create().returncode == 0, oci.said()
    assert [row["pids"] for row in oci.daemon.ps()] == [[oci.pid()]]
    assert oci.call("start", oci.id).returncode == 0


# One id, two containers


def test_equal_ids_under_two_roots_are_two_containers(oci: Oci, tmp_path: Path) -> None:
    """As two engines, or two namespaces of containerd, have them: each has its own grant and its own end."""
    half = f"GPU_MEMORY_LIMIT={oci.daemon.gpus()[0]['free'] // MIB // 2}Mi"
    other = Oci(tmp_path / "other", oci.name, oci.daemon)
    other.id = oci.id
    other.cgroup = f"{oci.cgroup}-other"
    for each in (oci, other):
        each.write(request=half)
        each.start()
    assert len(oci.daemon.ps()) == 2
    other.delete()
    oci.daemon.until(lambda: len(oci.daemon.ps()) == 1)
    assert [row["pids"] for row in oci.daemon.ps()] == [[oci.pid()]]
    other.write(request=half)
    other.start()
    other.delete()
    assert other.leftovers() == []


def test_equal_ids_that_share_a_cgroup_end_together_at_the_latest(oci: Oci, tmp_path: Path) -> None:
    """Where both runtimes derive the cgroup from the id alone, none is released while one of both lives."""
    other = Oci(tmp_path / "other", oci.name, oci.daemon)
    other.id, other.cgroup = oci.id, oci.cgroup
    oci.write()
    oci.start()
    other.write()
    if other.create().returncode != 0:
        oci.daemon.until(lambda: len(oci.daemon.ps()) == 1)
        other.delete()
    assert oci.pid() in [pid for row in oci.daemon.ps() for pid in row["pids"]]
    other.delete()
    oci.delete()


def test_one_id_again_and_again(oci: Oci) -> None:
    """Deleted and created at once, as `docker restart` does, with all of the GPU each time."""
    oci.write(request=whole(oci.daemon))
    config = oci.bundle.config.read_bytes()
    for _ in range(50 if os.environ.get("GPUPORTION_TEST_LONG") else 8):
        oci.start()
        assert [row["pids"] for row in oci.daemon.ps()] == [[oci.pid()]]
        oci.delete()
        oci.bundle.config.write_bytes(config)
