"""Whose account a portion of `gpuportion exec` is: real users, a real daemon, a real client on simulated GPUs."""

from __future__ import annotations

import errno
import grp
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.native.capped import OUT_OF_MEMORY, Client
from tests.support.daemon import Daemon, Sleeper

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: becomes other users")

ANN, BOB = 54321, 54322
MB = 10**6
EXEC = [sys.executable, "-m", "gpuportion", "exec", "--gpu-memory=1G", "--"]
MAY_MOUNT = ("--inh-caps=+sys_admin", "--ambient-caps=+sys_admin")
MAY_BECOME = ("--inh-caps=+setuid,+setgid", "--ambient-caps=+setuid,+setgid")


def user(uid: int, *options: str) -> list[str]:
    """What makes a command this user's, who may ask the daemon."""
    group = grp.getgrnam("nogroup").gr_gid
    return ["setpriv", f"--reuid={uid}", f"--regid={group}", "--clear-groups", *options, "--"]


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A folder that everybody reaches: those of pytest are root's alone."""
    with tempfile.TemporaryDirectory(prefix="gpuportion-users-", dir="/tmp") as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


@pytest.fixture(scope="module")
def open_daemon(place: Path) -> Iterator[Daemon]:
    """One whose socket these users may use."""
    asks = subprocess.run([*user(ANN), *EXEC[:3], "--help"], stdout=subprocess.DEVNULL, check=False)
    if asks.returncode != 0:
        pytest.skip("needs a Python that other users may run")
    with Daemon(place, options=["--socket-group", "nogroup"]) as running:
        yield running


@pytest.fixture
def env(open_daemon: Daemon) -> dict[str, str]:
    return {**open_daemon.env, "GPUPORTION_SIM_STATE": str(open_daemon.run_dir / "sim/state")}


def opened(path: str, uid: int) -> int:
    """The error that this user gets for opening a file, in any way; 0 for none."""
    code = "import os, sys\ntry: os.open(sys.argv[1], os.O_RDWR if sys.argv[2] == 'w' else os.O_RDONLY)\n"
    code += "except OSError as problem: sys.exit(problem.errno)"
    ways = [subprocess.run([*user(uid), sys.executable, "-c", code, path, way], check=False) for way in "rw"]
    (found,) = {done.returncode for done in ways}
    return found


def ledger_of(daemon: Daemon) -> str:
    (row,) = daemon.ps()
    return str(daemon.run_dir / "grants" / row["token"] / "ledger" / "ledger")


@contextmanager
def client_of(daemon: Daemon, env: dict[str, str], *before: str, way: str = "dlsym") -> Iterator[Client]:
    """A client that `before` becomes; it reaches the driver in this `way`."""
    client = Client(env, way, before=before)
    try:
        yield client
    finally:
        if client.process.poll() is None:
            client.kill()
    daemon.until(lambda: not daemon.ps())


def is_held(client: Client) -> None:
    """600 MB of 1 GB are given, 600 MB more are refused."""
    assert client.begin()("linear 600000000")[0] == 0
    assert client("linear 600000000")[0] == OUT_OF_MEMORY
    assert "GP201" in client.end()


@pytest.mark.parametrize("uid", [0, ANN])
def test_nobody_else_opens_the_account_of_a_portion(
    open_daemon: Daemon, env: dict[str, str], uid: int
) -> None:
    """Neither to write nonsense nor to lock it; who asked for the portion is held to it, and root may."""
    with client_of(open_daemon, env, *user(uid), *EXEC) as client:
        client.begin()
        ledger = ledger_of(open_daemon)
        assert (opened(ledger, BOB), opened(ledger, uid), opened(ledger, 0)) == (errno.EACCES, 0, 0)
        assert [row["user"] for row in open_daemon.ps()] == [uid]
        is_held(client)


def test_the_account_of_a_container_is_opened_by_no_user_of_the_host(open_daemon: Daemon) -> None:
    """Nor is its policy read, by the path that everybody sees in the list of mounts."""
    with Sleeper() as container:
        granted = open_daemon.create("GPU_MEMORY_LIMIT=1G")
        open_daemon.confirm(granted.token, container)
        folder = open_daemon.run_dir / "grants" / granted.token
        found = {
            name: opened(f"{folder}/{name}", BOB) for name in ("ledger/ledger", "policy", "ld.so.preload")
        }
        assert set(found.values()) == {errno.EACCES}, found
        assert opened(f"{folder}/ledger/ledger", 0) == 0
    open_daemon.until(lambda: not open_daemon.ps())


@pytest.mark.parametrize("asker", [user(0), user(ANN, *MAY_BECOME)], ids=["mounted", "by-environment"])
def test_another_user_under_a_portion_gets_nothing_and_is_told_why(
    open_daemon: Daemon, env: dict[str, str], asker: list[str]
) -> None:
    """`gpuportion exec -- su bob`: what can't be counted isn't granted."""
    with client_of(open_daemon, env, *asker, *EXEC, *user(BOB)) as client:
        assert (client("init"), client("retain 0")) == ((0,), (OUT_OF_MEMORY,))
        open_daemon.until(lambda: open_daemon.gpus()[0]["used"] == 0)  # NVML may have been read just then
        said = client.end()
    assert "GP202" in said and "another user's" in said and "run gpuportion exec as" in said


def test_root_under_a_users_portion_is_held_to_it(
    open_daemon: Daemon, env: dict[str, str], place: Path
) -> None:
    """As by sudo, where the portion is held by mounts: a set-uid program loses its LD_PRELOAD."""
    become = place / "become"
    shutil.copy(shutil.which("setpriv") or "", become)
    become.chmod(0o4755)
    root = [str(become), "--reuid=0", "--regid=0", "--clear-groups", "--"]
    way = f"open={open_daemon.run_dir}/sim/lib/libcuda.so.1"
    with client_of(open_daemon, env, *user(ANN, *MAY_MOUNT), *EXEC, *root, way=way) as client:
        client.begin()
        assert Path(f"/proc/{client.process.pid}").stat().st_uid == 0
        assert [row["user"] for row in open_daemon.ps()] == [ANN]
        is_held(client)
