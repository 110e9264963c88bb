"""A daemon that dies at each named place of its work: the next one finds everything, and counts it once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.daemon import MIB, Daemon, Sleeper
from tests.support.mig_daemon import PLACES

from gpuportion import wire
from gpuportion.allocator.fault_points import POINTS, VARIABLE
from gpuportion.errors import RefusedError

ROOT = Path(__file__).parents[2]
EXEC = """
import os, sys
from pathlib import Path
from tests.support.daemon import Daemon
request = {"GPU_MEMORY_LIMIT": "1G"}
Daemon(Path(sys.argv[1])).ask("exec", request=request, argv0="train", mounts=False, fds=(os.pidfd_open(os.getpid()),))
"""

CREATING = ("reserving", "reserved", "ledger-mounted", "ledger-written", "pages-made", "answering:1")
"""The create has no answer, so there is no container."""
CONFIRMING = ("answered:1", "confirming")
"""The create has its answer, the hook has none: the container fails."""
CONFIRMED = ("confirmed", "answering:2", "answered:2")
"""The grant is active, and so the container's for as long as it lives, whether its hook has heard it or not."""
ENDING = ("releasing", "released", "ledger-unmounted", "pages-removed", "forgotten")
STARTING = ("recovering", "adopted", "orphans-removed")


class Dying(Daemon):
    def start_to_die_at(self, place: str) -> None:
        """Without a question: an answer is a place as well."""
        self.env[VARIABLE] = place
        self.process = self.spawn()
        del self.env[VARIABLE]

    def wait_for_death(self) -> None:
        assert self.process is not None
        assert self.process.wait(timeout=60) == -signal.SIGKILL, self.tail()

    def connected(self) -> None:
        """Wait until it listens."""
        deadline = time.monotonic() + 60
        while True:
            try:
                return self.connect().close()
            except OSError:
                assert time.monotonic() < deadline, self.tail()

    def grant(self, size: str, container: Sleeper) -> bool:
        """As launcher and hook do, with the same id each time. False: the daemon died before it had said yes twice."""
        try:
            self.confirm(self.create(f"GPU_MEMORY_LIMIT={size}", id="one").token, container)
        except (OSError, wire.ProtocolError):
            return False
        return True


@pytest.fixture
def dying(tmp_path: Path) -> Iterator[Dying]:
    daemon = Dying(tmp_path)
    with daemon:
        yield daemon
        daemon.until(lambda: not daemon.ps() and not daemon.folders())
        assert daemon.gpus()[0]["granted"] == 0
        assert f"{daemon.run_dir}/grants" not in Path("/proc/mounts").read_text()


def whole(daemon: Daemon) -> str:
    """All that GPU 0 has: a grant that leaked, or was given twice, shows."""
    return f"{daemon.gpus()[0]['free'] // MIB}Mi"


@pytest.mark.parametrize("place", [*CREATING, *CONFIRMING, *CONFIRMED])
def test_a_daemon_that_dies_while_it_grants(dying: Dying, place: str) -> None:
    """What was not confirmed can be asked for again at once; what was is kept until its container ends."""
    size = whole(dying)
    dying.stop()
    dying.start_to_die_at(place)
    dying.connected()
    with Sleeper() as container:
        said_yes = dying.grant(size, container)
        dying.wait_for_death()
        assert said_yes <= (place == "answered:2")
        dying.start()
        if place in CONFIRMED:
            assert [row["pids"] for row in dying.ps()] == [[container.pid]]
            with pytest.raises(RefusedError, match="GP101"):
                dying.create("GPU_MEMORY_LIMIT=1G", id="another")
        else:
            assert dying.grant(size, container)
        dying.until(lambda: len(dying.ps()) == len(dying.folders()) == 1)
    dying.until(lambda: not dying.ps())
    with Sleeper() as container:
        assert dying.grant(size, container)


@pytest.mark.parametrize("place", ENDING)
def test_a_daemon_that_dies_while_it_releases(dying: Dying, place: str) -> None:
    """The rest is done by the next one, and all of the GPU can be granted again."""
    size = whole(dying)
    dying.stop()
    dying.start_to_die_at(place)
    dying.connected()
    with Sleeper() as container:
        assert dying.grant(size, container)
    dying.wait_for_death()
    dying.start()
    assert dying.ps() == [] and dying.folders() == set()
    with Sleeper() as container:
        assert dying.grant(size, container)


@pytest.mark.parametrize("place", STARTING)
def test_a_daemon_that_dies_while_it_starts(dying: Dying, place: str) -> None:
    """The grant of a container that lives is there, what belongs to nothing is not."""
    size = whole(dying)
    with Sleeper() as container:
        assert dying.grant(size, container)
        before = [(row["token"], row["state"]) for row in dying.ps()]
        dying.kill()
        (dying.run_dir / "grants" / ("f" * 32) / "ledger").mkdir(parents=True)
        dying.start_to_die_at(place)
        dying.wait_for_death()
        dying.start()
        assert [(row["token"], row["state"]) for row in dying.ps()] == before
        assert dying.folders() == {before[0][0]}


def test_a_daemon_that_dies_while_a_process_asks_for_a_portion(dying: Dying) -> None:
    """`exec`: the private folder goes with the reservation."""
    dying.stop()
    dying.start_to_die_at("portion-made")
    dying.connected()
    caller = subprocess.run(
        [sys.executable, "-c", EXEC, str(dying.run_dir.parent)], cwd=ROOT, capture_output=True, check=False
    )
    assert caller.returncode != 0
    dying.wait_for_death()
    assert len(os.listdir(dying.state_dir / "exec")) == 2, "the place comes after the folder is made"
    dying.start()
    dying.until(lambda: not dying.ps())
    assert os.listdir(dying.state_dir / "exec") == ["libraries"]


def test_every_place_is_died_at() -> None:
    """A place that no test names proves nothing."""
    named = {place.partition(":")[0] for place in (*CREATING, *CONFIRMING, *CONFIRMED, *ENDING, *STARTING)}
    assert named | set(PLACES) | {"portion-made"} == set(POINTS)


@pytest.mark.parametrize("value", ["nowhere", "reserved:x", ":2"])
def test_a_place_that_is_not_there_is_refused(tmp_path: Path, value: str) -> None:
    """A daemon that goes on would make its test pass."""
    daemon = Dying(tmp_path)
    daemon.start_to_die_at(value)
    assert daemon.process is not None
    assert daemon.process.wait(timeout=60) == 1
    assert VARIABLE in daemon.tail()
