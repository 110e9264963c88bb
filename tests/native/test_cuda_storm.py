"""Storms of CUDA clients at the edge of one grant: nothing over it, one winner for a last place, nothing left behind.

The ledger's own storm (test_ledger_storm.py) has no driver; here both sides are compared, what is counted and what the
simulated driver gave out. GPUPORTION_TEST_LONG=1: 64 processes for a minute, 10 000 kills, 1 000 stops.
"""

from __future__ import annotations

import mmap
import os
import random
import signal
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gpuportion.allocator import pages
from gpuportion.simgpu import state
from tests.native import capped
from tests.native.capped import Grant, Simulated
from tests.native.ledger_build import FLAGS, call, have_compiler
from tests.simgpu.driver import MIB, OUT, OUT_OF_MEMORY, SUCCESS, Driver

pytestmark = pytest.mark.skipif(not have_compiler(), reason="needs a C compiler (cc)")

LONG = bool(os.environ.get("GPUPORTION_TEST_LONG"))
PROCESSES, THREADS = (64, 8) if LONG else (16, 8)
FIGHT, ROUNDS = (60.0, 200) if LONG else (2.0, 20)
KILLS, STOPS = (10_000, 1_000) if LONG else (200, 20)
FREE, ONE_PLACE, STORM, PROBE, OVER = range(5)
WORDS = [
    *("phase", "round", "ready", "arrived", "winners", "finished", "place"),
    *("grants", "refusals", "over", "strange", "forks", "slowest"),
]
LIMIT = 1024 * MIB
PAGE = 2 * MIB
"""Each process keeps one charged in advance, once it has had a small block."""


class Page:
    """What the clients read and count."""

    def __init__(self, path: Path) -> None:
        path.write_bytes(bytes(4096))
        self.path = path
        with path.open("r+b") as file:
            self.map = mmap.mmap(file.fileno(), 4096)

    def __getitem__(self, name: str) -> int:
        return int(struct.unpack_from("<Q", self.map, 8 * WORDS.index(name))[0])

    def __setitem__(self, name: str, value: int) -> None:
        struct.pack_into("<Q", self.map, 8 * WORDS.index(name), value)


class Storm:
    """The clients of a grant, and both accounts."""

    def __init__(self, folder: Path, program: Path, driver: Simulated, grant: Grant, limit: int) -> None:
        self.page = Page(folder / "page")
        self.driver, self.limit = driver, limit
        self.policy, self.ledger = str(grant.folder / "policy"), str(grant.folder / "ledger")
        self.env = grant.preload()
        self.command = [str(program), str(self.page.path)]
        self.workers: list[subprocess.Popen[bytes]] = []

    def start(self, threads: int, *, look: bool) -> None:
        watched = [str(self.limit if look else 0), self.driver.sim.state, str(state.TOTAL_AT)]
        command = [*self.command, str(threads), *watched]
        self.workers.append(subprocess.Popen(command, env=self.env, stderr=subprocess.DEVNULL))

    def until(self, true: Callable[[], bool]) -> None:
        """Waits; for as long as the test may take."""
        while not true():
            assert all(worker.poll() is None for worker in self.workers), "a client ended by itself"
            time.sleep(0.001)

    def stop(self, which: list[subprocess.Popen[bytes]]) -> None:
        """At whatever instruction they are."""
        for worker in which:
            worker.send_signal(signal.SIGSTOP)
        for worker in which:
            os.waitid(os.P_PID, worker.pid, os.WSTOPPED | os.WNOWAIT)

    def compare(self) -> None:
        """While all stand still: the GPU within the limit, and of each client no less counted than taken."""
        taken, told = state.read(self.driver.sim.state)[0], pages.read_ledger(self.ledger)
        assert sum(taken.values()) <= self.limit
        assert not told.damaged
        counted = {process.pid: process.used for process in told.gpus[0].processes}
        assert told.gpus[0].used <= self.limit
        for worker in self.workers:
            assert taken.get(worker.pid, 0) <= counted.get(worker.pid, 0)

    def end(self) -> None:
        self.page["phase"] = OVER
        for worker in self.workers:
            worker.send_signal(signal.SIGCONT)
            worker.kill()
            worker.wait()
        self.workers.clear()

    def nothing_is_left(self) -> None:
        """Once the last child is gone, who comes next gets all of the grant, to the last page."""
        while pages.holders(self.ledger) or state.used(self.driver.sim.state):
            time.sleep(0.01)
        with Driver(self.env).open() as cuda:
            assert cuda.call("cuMemAlloc_v2", OUT, self.limit)[0] == SUCCESS


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("storm") / "cuda_storm"
    source = Path(__file__).with_name("cuda_storm.c")
    call("cc", *FLAGS, "-O2", str(source), "-pthread", "-ldl", "-o", str(made))
    return made


@pytest.fixture
def storm(tmp_path: Path, program: Path) -> Iterator[Storm]:
    driver = capped.simulate(tmp_path, context=0)
    made = Storm(tmp_path, program, driver, driver.grant(LIMIT), LIMIT)
    yield made
    made.end()


@pytest.mark.timeout(900 if LONG else 120)
def test_a_race_at_the_edge_of_a_grant(storm: Storm) -> None:
    """Many processes of 8 threads: after no grant has the GPU a byte too much, and of all who ask for the last place
    exactly one gets it."""
    page = storm.page
    for _ in range(PROCESSES):
        storm.start(THREADS, look=True)
    storm.until(lambda: page["ready"] == PROCESSES * THREADS)
    time.sleep(FIGHT)
    storm.until(lambda: min(page["grants"], page["refusals"]) > 100)
    page["place"] = LIMIT - PROCESSES * PAGE
    page["phase"] = ONE_PLACE
    storm.until(lambda: state.used(storm.driver.sim.state) == 0)
    assert (page["over"], page["strange"]) == (0, 0)
    for round_number in range(1, ROUNDS + 1):
        page["arrived"] = page["winners"] = page["finished"] = 0
        page["round"] = round_number
        storm.until(lambda: page["finished"] == PROCESSES * THREADS)
        assert page["winners"] == 1
    assert (page["over"], page["strange"]) == (0, 0)
    storm.end()
    storm.nothing_is_left()


@pytest.mark.timeout(3000 if LONG else 200)
def test_clients_that_fork_and_are_killed_leave_nothing(storm: Storm) -> None:
    """At random instructions, on both sides of the driver's calls; now and then everybody is stopped and compared."""
    page, dice = storm.page, random.Random(7)
    page["phase"] = STORM
    for _ in range(6):
        storm.start(2, look=False)
    for kill in range(KILLS):
        time.sleep(dice.random() * 0.01)
        victim = storm.workers.pop(dice.randrange(len(storm.workers)))
        assert victim.poll() is None, "a client ended by itself"
        victim.kill()
        victim.wait()
        storm.start(2, look=False)
        if kill % (KILLS // STOPS) == 0:
            storm.stop(storm.workers)
            storm.compare()
            for worker in storm.workers:
                worker.send_signal(signal.SIGCONT)
    assert page["strange"] == 0
    assert min(page["grants"], page["refusals"], page["forks"]) > 0
    storm.end()
    storm.nothing_is_left()


def test_who_is_stopped_delays_nobody(storm: Storm) -> None:
    """Several, at whatever instruction: another one goes on. How long its slowest call took, but for waiting for a
    processor, is printed; in the long run it must be less than 10 ms."""
    page = storm.page
    slowest = []
    for _ in range(STOPS):
        page["phase"] = FREE
        while len(storm.workers) < 5:
            storm.start(2, look=False)
        time.sleep(0.01)
        storm.stop(storm.workers[1:])
        page["slowest"], before = 0, page["grants"]
        page["phase"] = PROBE
        storm.until(lambda before=before: page["grants"] > before + 300)  # type: ignore[misc]
        slowest.append(page["slowest"])
        for worker in storm.workers[1:]:
            worker.send_signal(signal.SIGCONT)
    print(
        f"slowest calls beside stopped processes, ms: {[round(each / 1e6, 2) for each in sorted(slowest)[-5:]]}"
    )
    if LONG:
        assert max(slowest) < 10_000_000


def test_a_limit_moves_under_load(storm: Storm) -> None:
    """Grown, more is granted at once; lowered, nothing more is, until all are below it; and then none goes over it."""
    page, total = storm.page, storm.driver.sim.state
    uuid = pages.read_policy(storm.policy).gpus[0].uuid
    for _ in range(4):
        storm.start(4, look=False)
    storm.until(lambda: page["refusals"] > 100)
    for limit in [256 * MIB, LIMIT, 512 * MIB, 128 * MIB, 2 * LIMIT, 64 * MIB] * (50 if LONG else 2):
        pages.set_limit(storm.policy, uuid, limit)
        storm.until(lambda limit=limit: state.charged(total) <= limit)  # type: ignore[misc]
        before = page["grants"]
        while page["grants"] < before + 200:
            assert state.charged(total) <= limit
    assert page["strange"] == 0
    storm.end()


def test_the_next_allocation_sees_a_new_limit(storm: Storm) -> None:
    """One aligned store of the daemon's; the process asks nobody, and what it holds stays."""
    uuid = pages.read_policy(storm.policy).gpus[0].uuid
    with Driver(storm.env).open() as cuda:
        for limit, result in (
            (LIMIT, SUCCESS),
            (100 * MIB, OUT_OF_MEMORY),
            (2 * LIMIT, SUCCESS),
            (0, OUT_OF_MEMORY),
        ):
            pages.set_limit(storm.policy, uuid, limit)
            assert cuda.call("cuMemAlloc_v2", OUT, 600 * MIB)[0] == result
            assert cuda.do("cuDeviceTotalMem_v2", OUT, 0) == limit
            assert cuda.info()[1] == limit
        assert state.used(storm.driver.sim.state) == 1200 * MIB
