"""A store that cannot be read, or is gone: who runs is found again, by notes, or by the pages that they live with."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.support.daemon import MIB, Cgroup, Daemon, Sleeper
from tests.support.mig_daemon import MigDaemon

from gpuportion.errors import RefusedError

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: mounts a policy as a container has it")

ID = f"{os.getpid():064x}"
IN_A_CONTAINER = "mount --bind {folder}/policy {place} && exec sleep 3600"


@pytest.fixture
def named() -> Iterator[Cgroup]:
    """A cgroup that is called as engines call a container's."""
    made = Cgroup(f"docker-{ID}.scope")
    yield made
    made.remove()


def container(daemon: Daemon, token: str) -> Sleeper:
    """A process in a mount namespace of its own, which has the grant's policy."""
    place = daemon.run_dir.parent / f"inside-{token[:8]}"
    place.touch()
    script = IN_A_CONTAINER.format(folder=daemon.run_dir / "grants" / token, place=place)
    made = Sleeper(("unshare", "--mount", "--propagation", "private", "sh", "-c", script))
    daemon.until(lambda: b"sleep" in Path(f"/proc/{made.pid}/cmdline").read_bytes())
    return made


def ruined(store: Path) -> None:
    store.write_bytes(b"no database at all" * 100)


def of_a_later_version(store: Path) -> None:
    with sqlite3.connect(store) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()


def damaged_within(store: Path) -> None:
    """A page in the midst of it, which sqlite itself meets only when it comes there."""
    with sqlite3.connect(store) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    whole = store.read_bytes()
    store.write_bytes(whole[:4096] + b"\xff" * (len(whole) - 4096))


def taken_away(store: Path) -> None:
    for path in store.parent.glob("store.sqlite3*"):
        path.unlink()


def without_notes(store: Path) -> None:
    """As of a daemon that wrote none, or had no room for them: the pages are all there is."""
    shutil.rmtree(store.parent / "notes")
    ruined(store)


@contextmanager
def stopped(daemon: Daemon) -> Iterator[Path]:
    assert daemon.stop() == 0
    yield daemon.run_dir / "store.sqlite3"
    daemon.start()


@pytest.mark.parametrize("damage", [ruined, of_a_later_version, damaged_within, taken_away, without_notes])
def test_who_runs_keeps_the_grant(daemon: Daemon, named: Cgroup, damage: Callable[[Path], None]) -> None:
    """As large, by the same token, and no byte of it is given to another; who is gone gets nothing."""
    gone = daemon.create("GPU_MEMORY_LIMIT=1G", id="gone")
    lives = daemon.create("GPU_MEMORY_LIMIT=60G", id=ID)
    with container(daemon, lives.token) as running:
        named.add(running.pid)
        daemon.confirm(lives.token, running)
        with Sleeper() as other:
            daemon.confirm(gone.token, other)
            (before,) = [row for row in daemon.ps() if row["token"] == lives.token]
            assert daemon.stop() == 0
        store = daemon.run_dir / "store.sqlite3"
        damage(store)
        daemon.start()
        (row,) = daemon.ps()
        same = ("token", "container", "state", "gpus", "pids", "kind", "name")
        assert {key: row[key] for key in same} == {key: before[key] for key in same}
        assert daemon.folders() == {lives.token}
        with pytest.raises(RefusedError, match="GP101"):
            daemon.create("GPU_MEMORY_LIMIT=40G", id="another")
        assert "found again" in daemon.tail()
        if damage is not taken_away:
            assert f"It is kept as {store}.broken" in daemon.tail()
            assert (daemon.run_dir / "store.sqlite3.broken").exists()
        daemon.confirm(lives.token, running)  # its hook may come only now
    daemon.until(lambda: not daemon.ps() and not daemon.folders())


@pytest.mark.parametrize("damage", [ruined, without_notes])
def test_a_process_that_was_given_a_portion_keeps_it(daemon: Daemon, damage: Callable[[Path], None]) -> None:
    """`gpuportion exec`: the library that it has loaded lies in its own folder."""
    command = [str(Path(sys.executable).with_name("gpuportion")), "exec", "--gpu-memory", "4G"]
    with subprocess.Popen([*command, "--", "sleep", "3600"], env=daemon.env) as running:
        daemon.until(lambda: [row["state"] for row in daemon.ps()] == ["active"])
        daemon.until(lambda: Path(f"/proc/{running.pid}/comm").read_text() == "sleep\n")
        (before,) = daemon.ps()
        with stopped(daemon) as store:
            damage(store)
        (row,) = daemon.ps()
        same = ("token", "gpus", "pids", "kind", "user")
        assert {key: row[key] for key in same} == {key: before[key] for key in same}
        running.kill()
    daemon.until(lambda: not daemon.ps() and not daemon.folders())
    assert os.listdir(daemon.state_dir / "exec") == ["libraries"]


@pytest.mark.parametrize("damage", [ruined, without_notes])
def test_a_container_that_grew_is_found_as_large_as_it_is(
    daemon: Daemon, damage: Callable[[Path], None]
) -> None:
    """The page is what holds it, not what it once asked for."""
    granted = daemon.create("GPU_MEMORY_LIMIT=4G", id="grows")
    with container(daemon, granted.token) as running:
        daemon.confirm(granted.token, running)
        daemon.ask("update", container="grows", memory="6G", force=False)
        with stopped(daemon) as store:
            damage(store)
        assert [row["gpus"][0]["limit"] // MIB for row in daemon.ps()] == [5722]
    daemon.until(lambda: not daemon.ps())


def test_a_second_damage_goes_over_the_first(daemon: Daemon) -> None:
    """The one that is kept is the last one."""
    for text in (b"first" * 999, b"second" * 999):
        with stopped(daemon) as store:
            store.write_bytes(text)
        assert (daemon.run_dir / "store.sqlite3.broken").read_bytes() == text


def trusting(folder: Path) -> tuple[str, str]:
    """Options of a daemon that takes an annotation's word for whose a container is."""
    config = folder / "config.yaml"
    config.write_text("user-annotation: trust\n")
    return "--config", str(config)


def test_what_only_the_daemon_knew_is_known_again(tmp_path: Path) -> None:
    """Whose a container is, and that it has its GPU for itself: rules and placement go by it."""
    with Daemon(tmp_path, options=trusting(tmp_path)) as daemon, Sleeper() as running:
        granted = daemon.create("GPU_COUNT=1", id=ID, annotations={"gpuportion.io/user": "ann"})
        daemon.confirm(granted.token, running)
        (before,) = daemon.ps()
        assert before["user"] == "ann"
        with stopped(daemon) as store:
            ruined(store)
        (row,) = daemon.ps()
        assert {**row, "age_s": 0} == {**before, "age_s": 0}
        with pytest.raises(RefusedError, match="GP101"):
            daemon.create("GPU_MEMORY_LIMIT=256Mi", id="another")


def test_a_mig_instance_stays_its_containers(tmp_path: Path) -> None:
    """Though no process of it is on the instance, and it has no pages."""
    with MigDaemon(tmp_path, options=trusting(tmp_path)) as daemon:
        with Sleeper() as running, Sleeper() as other:
            granted = daemon.create("GPU_MIG=1g.5gb", id=ID, annotations={"gpuportion.io/user": "ann"})
            daemon.confirm(granted.token, running)
            (before,) = daemon.ps()
            with stopped(daemon) as store:
                ruined(store)
            (row,) = daemon.ps()
            assert {**row, "age_s": 0} == {**before, "age_s": 0}
            assert row["user"] == "ann"
            assert daemon.states() == ["1g.5gb@6 in-use"]
            daemon.confirm(daemon.create("GPU_MIG=1g.5gb", id="another").token, other)
            assert sorted(daemon.states()) == ["1g.5gb@4 in-use", "1g.5gb@6 in-use"]
            with stopped(daemon) as store:
                ruined(store)
                running.end()
            daemon.until(lambda: [row["container"] for row in daemon.ps()] == ["another"])
            assert sorted(daemon.states()) == ["1g.5gb@4 in-use", "1g.5gb@6 idle"]
        daemon.until(lambda: not daemon.ps() and not os.listdir(daemon.run_dir / "notes"))
