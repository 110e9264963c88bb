"""What changes around a daemon: the boot, the wall clock, the room in its run directory, who uses an id."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from tests.support.daemon import MIB, Daemon, Sleeper

from gpuportion.errors import RefusedError

HERE = Path(__file__).parent
DAY = 86_400
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: mounts file systems")


@needs_root
def test_rows_of_another_boot_mean_nothing(daemon: Daemon, tmp_path: Path) -> None:
    """The daemon of the next boot finds a run directory that outlived it, and the pids in it are somebody else's."""
    with Sleeper() as container:
        daemon.confirm(daemon.create("GPU_MEMORY_LIMIT=60G").token, container)
        daemon.create("GPU_MEMORY_LIMIT=1G", id="reserved")
        daemon.kill()
        boot = tmp_path / "boot_id"
        boot.write_text("11111111-2222-3333-4444-555555555555\n")
        script = f'mount --bind {boot} /proc/sys/kernel/random/boot_id && exec "$0" "$@"'
        daemon.wrapper = ("unshare", "--mount", "--propagation", "unchanged", "sh", "-c", script)
        daemon.start()
        daemon.wrapper = ()
        subprocess.run(["umount", "/proc/sys/kernel/random/boot_id"], check=False, stderr=subprocess.DEVNULL)
        assert daemon.ps() == [] and daemon.folders() == set()
        daemon.confirm(daemon.create("GPU_MEMORY_LIMIT=80G", id="new").token, container)


@pytest.fixture
def set_wall_clock(daemon: Daemon, tmp_path: Path) -> Path:
    """The daemon runs by a wall clock that is off by the seconds in this file."""
    library, offset = tmp_path / "wall_clock.so", tmp_path / "offset"
    source = HERE / "wall_clock.c"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(source)], check=True)
    offset.write_text("0")
    daemon.stop()
    daemon.env |= {"LD_PRELOAD": str(library), "WALL_CLOCK": str(offset)}
    daemon.start()
    return offset


def test_a_wall_clock_that_jumps_ends_nothing(daemon: Daemon, set_wall_clock: Path) -> None:
    """By years, in either direction: reservations, grants and their ages are counted by another clock."""
    with Sleeper() as container:
        active = daemon.create("GPU_MEMORY_LIMIT=4G", id="active")
        daemon.confirm(active.token, container)
        reserved = daemon.create("GPU_MEMORY_LIMIT=4G", id="reserved")
        for days in (4000, -4000, 0):
            set_wall_clock.write_text(str(days * DAY))
            rows = {row["container"]: row for row in daemon.ps()}
            assert {name: row["state"] for name, row in rows.items()} == {
                "active": "active",
                "reserved": "reserved",
            }
            assert all(0 <= row["age_s"] < DAY for row in rows.values())
            daemon.ask("why", container="active")
        daemon.confirm(reserved.token, container)
        set_wall_clock.write_text(str(-4000 * DAY))
        daemon.kill()
        daemon.start()
        assert len(daemon.ps()) == 2
    daemon.until(lambda: not daemon.ps())


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Daemon]:
    """A daemon whose run directory is a file system of 512 KiB, but for the simulated driver."""
    daemon = Daemon(tmp_path)
    daemon.run_dir.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(daemon.run_dir)], check=True)
    try:
        for name in ("sim", "cdi"):
            (tmp_path / name).mkdir()
            (daemon.run_dir / name).mkdir()
            subprocess.run(["mount", "--bind", str(tmp_path / name), str(daemon.run_dir / name)], check=True)
        with daemon:
            yield daemon
    finally:
        subprocess.run(["umount", "-R", "-l", str(daemon.run_dir)], check=False)


def fill(place: Path) -> Path:
    """Take every byte that is left there."""
    ballast = place / "ballast"
    with ballast.open("ab", buffering=0) as file:
        for piece in (1 << 16, 512):
            with suppress(OSError):
                while True:
                    file.write(b"\0" * piece)
    return ballast


@needs_root
def test_a_full_run_directory_refuses_and_gives_back(small: Daemon) -> None:
    """Nobody gets a grant that can't be written down; who has one keeps it; who ends gives it back all the same."""
    free = small.gpus()[0]["free"]
    with ExitStack() as stack:
        kept = stack.enter_context(Sleeper())
        token = small.create("GPU_MEMORY_LIMIT=1G", id="kept").token
        small.confirm(token, kept)
        with Sleeper() as ends:
            small.confirm(small.create("GPU_MEMORY_LIMIT=1G", id="ends").token, ends)
            ballast = fill(small.run_dir)
            for _ in range(20):
                with pytest.raises(RefusedError, match="GP306") as refused:
                    small.create("GPU_MEMORY_LIMIT=1G", id="more")
            assert str(small.run_dir) in refused.value.text
            assert {row["container"] for row in small.ps() if row["state"] == "active"} == {"kept", "ends"}
        small.until(lambda: [row["container"] for row in small.ps()] == ["kept"])
        assert small.gpus()[0]["granted"] == 10**9 // MIB * MIB
        ballast.unlink()
        with Sleeper() as more:
            small.confirm(small.create("GPU_MEMORY_LIMIT=1G", id="more").token, more)
            assert len(small.ps()) == 2
    small.until(lambda: not small.ps() and not small.folders())
    assert small.gpus()[0]["free"] == free
    log = small.log.read_text()
    assert "a bug" not in log and "Traceback" not in log


@needs_root
def test_a_full_run_directory_does_not_cost_the_store(small: Daemon) -> None:
    """A daemon that finds no room at its start must not take its store for a broken one."""
    with Sleeper() as container:
        small.confirm(small.create("GPU_MEMORY_LIMIT=1G", id="kept").token, container)
        small.kill()
        ballast = fill(small.run_dir)
        process = small.spawn()
        small.process = process
        small.until(lambda: process.poll() is not None or small.listens())
        if process.poll() is None:
            assert [row["container"] for row in small.ps()] == ["kept"]
            small.kill()
        else:
            assert "Make room there" in small.tail(), process.returncode
        ballast.unlink()
        small.start()
        assert [row["container"] for row in small.ps()] == ["kept"]
        assert not (small.run_dir / "store.sqlite3.broken").exists()


def test_an_id_that_is_used_again_at_once_is_another_container(daemon: Daemon) -> None:
    """`docker restart`: a new container with the old id, while the old one's grant is on its way out."""
    with Sleeper() as before:
        old = daemon.create("GPU_MEMORY_LIMIT=40G", id="same")
        daemon.confirm(old.token, before)
    with Sleeper() as after:
        new = daemon.create("GPU_MEMORY_LIMIT=70G", id="same")
        daemon.ask("deleted", root="/run/test", id="same")  # the old one's, late
        daemon.confirm(new.token, after)
        assert [(row["token"], row["state"]) for row in daemon.ps()] == [(new.token, "active")]
    daemon.until(lambda: not daemon.ps())


def test_equal_ids_of_two_engines_are_two_containers(daemon: Daemon) -> None:
    """Engines number their containers without asking each other; the end of one is not the other's."""
    with Sleeper() as one:
        first = daemon.create("GPU_MEMORY_LIMIT=20G", id="same", root="/run/docker/runtime-runc/moby")
        daemon.confirm(first.token, one)
        with Sleeper() as other:
            second = daemon.create("GPU_MEMORY_LIMIT=20G", id="same", root="/run/containerd/runc/k8s.io")
            daemon.confirm(second.token, other)
            assert {row["token"] for row in daemon.ps()} == {first.token, second.token}
        daemon.ask("deleted", root="/run/containerd/runc/k8s.io", id="same")
        daemon.until(lambda: [row["token"] for row in daemon.ps()] == [first.token])
    daemon.until(lambda: not daemon.ps())
