"""A daemon that is killed at any moment, restarted, or started twice."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import threading
from pathlib import Path

import pytest
from tests.support.daemon import MIB, Cgroup, Daemon, Sleeper

from gpuportion import wire
from gpuportion.errors import RefusedError


def test_grants_outlive_the_daemon(daemon: Daemon) -> None:
    """Killed and started again it knows reserved and active grants, and their ends."""
    with Sleeper() as container:
        active = daemon.create("GPU_MEMORY_LIMIT=4G", id="active")
        daemon.confirm(active.token, container)
        reserved = daemon.create("GPU_MEMORY_LIMIT=2G", id="reserved")
        before = [(row["token"], row["state"], row["gpus"]) for row in daemon.ps()]
        daemon.kill()
        daemon.start()
        assert [(row["token"], row["state"], row["gpus"]) for row in daemon.ps()] == before
        daemon.confirm(reserved.token, container)
    daemon.until(lambda: not daemon.ps())


def test_a_container_that_ended_while_no_daemon_was_there_is_released(daemon: Daemon, cgroup: Cgroup) -> None:
    """One is gone, one has left a process behind: the one that lives keeps its grant."""
    with Sleeper() as lingering:
        with Sleeper() as one, Sleeper() as other:
            gone = daemon.create("GPU_MEMORY_LIMIT=4G", id="gone")
            daemon.confirm(gone.token, one)
            cgroup.add(other.pid)
            cgroup.add(lingering.pid)
            stays = daemon.create("GPU_MEMORY_LIMIT=2G", id="stays")
            daemon.confirm(stays.token, other)
            daemon.kill()
        daemon.start()
        assert [row["token"] for row in daemon.ps()] == [stays.token]
        assert daemon.folders() == {stays.token}
    daemon.until(lambda: not daemon.ps())


def test_a_reservation_whose_creator_ended_meanwhile_is_released(daemon: Daemon) -> None:
    """Its confirm can never come."""
    daemon.create("GPU_MEMORY_LIMIT=4G")
    token = daemon.ps()[0]["token"]
    daemon.kill()
    with sqlite3.connect(
        daemon.run_dir / "store.sqlite3"
    ) as store:  # as if created by a process that is gone
        store.execute("""UPDATE "grant" SET detail = json_set(detail, '$.creator.start', 1)""")
    store.close()
    daemon.start()
    assert daemon.ps() == [] and token not in daemon.folders()


def test_a_boot_ends_all_grants(daemon: Daemon) -> None:
    """Where /run outlived a boot (a container's, a chroot's), its rows mean nothing any more."""
    with Sleeper() as container:
        daemon.confirm(daemon.create("GPU_MEMORY_LIMIT=4G").token, container)
        daemon.kill()
        with sqlite3.connect(daemon.run_dir / "store.sqlite3") as store:
            store.execute("""UPDATE "grant" SET boot = 'another'""")
        store.close()
        daemon.start()
        assert daemon.ps() == [] and daemon.folders() == set()


def test_pages_without_a_grant_are_removed(daemon: Daemon) -> None:
    """What a crash between two steps left on the disk."""
    daemon.kill()
    orphan = daemon.run_dir / "grants" / ("f" * 32)
    (orphan / "ledger").mkdir(parents=True)
    daemon.start()
    assert not orphan.exists()


def test_a_killed_daemon_neither_loses_nor_sells_memory(tmp_path: Path) -> None:
    """SIGKILL at moments that differ, while clients go on: in the end every grant answered for is there, the sum
    is never above what there is, and all of it comes back."""
    rounds = 30 if os.environ.get("GPUPORTION_TEST_LONG") else 6
    chance = random.Random(1)
    with Daemon(tmp_path) as daemon:
        size = daemon.gpus()[0]["free"] // 10 // MIB
        total = daemon.gpus()[0]["free"]
        for number in range(rounds):
            confirmed: list[str] = []
            with Sleeper() as container:
                clients = [
                    threading.Thread(
                        target=_ask_until_it_is_gone,
                        args=(daemon, size, f"{number}-{n}", container, confirmed),
                    )
                    for n in range(4)
                ]
                for client in clients:
                    client.start()
                signal.sigtimedwait([], chance.uniform(0.0, 0.05))
                daemon.kill()
                for client in clients:
                    client.join()
                daemon.start()
                rows = daemon.ps()
                assert set(confirmed) <= {row["token"] for row in rows}
                assert sum(row["gpus"][0]["limit"] for row in rows) <= total
                for row in rows:  # this process created them, so they are not abandoned yet
                    if row["state"] == "reserved":
                        daemon.confirm(row["token"], container)
            daemon.until(lambda: not daemon.ps() and not daemon.folders())
            assert daemon.gpus()[0]["free"] == total


def _ask_until_it_is_gone(
    daemon: Daemon, size: int, name: str, container: Sleeper, confirmed: list[str]
) -> None:
    for number in range(1000):
        try:
            token = daemon.create(f"GPU_MEMORY_LIMIT={size}Mi", id=f"{name}-{number}").token
            daemon.confirm(token, container)
            confirmed.append(token)
        except RefusedError:
            return  # full
        except (OSError, wire.ProtocolError):
            return  # killed


def test_a_second_daemon_is_refused(daemon: Daemon) -> None:
    """It says which one is there, and leaves its socket alone."""
    second = daemon.spawn()
    assert second.wait(timeout=60) == 1
    assert f"another gpuportiond (pid {daemon.pid}) serves" in daemon.tail()
    assert daemon.ask("ping").head["pid"] == daemon.pid


def test_sigterm_ends_it_at_once_and_leaves_the_grants(daemon: Daemon) -> None:
    """Running containers need no daemon; their pages stay."""
    with Sleeper() as container:
        granted = daemon.create("GPU_MEMORY_LIMIT=4G")
        daemon.confirm(granted.token, container)
        assert daemon.stop() == 0
        assert daemon.folders() == {granted.token}
        assert (daemon.run_dir / "grants" / granted.token / "policy").exists()


def test_sighup_is_no_end(daemon: Daemon) -> None:
    """Kept for reading the configuration again."""
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGHUP)
    assert daemon.ask("ping").head["ready"]


def test_a_node_without_a_driver_refuses_and_says_why(tmp_path: Path) -> None:
    """The daemon runs all the same: questions are answered."""
    daemon = Daemon(tmp_path)
    daemon.env |= {"GPUPORTION_NVML": "/nonexistent/libnvidia-ml.so.1"}
    daemon.sim = ""
    with daemon:
        with pytest.raises(RefusedError, match="GP302 this node cannot enforce a memory limit") as refused:
            daemon.create("GPU_MEMORY_LIMIT=4G")
        assert (
            "no such file" not in refused.value.text.lower()
        )  # docker would say that the command is missing
        assert daemon.gpus() == []
