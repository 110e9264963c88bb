"""Storms of CUDA clients at the edge of one grant: nothing over it, one winner for a last place, nothing left behind.

The ledger's own storm (test_ledger_storm.py) has no driver; here both sides are compared, what is counted and what the
simulated driver gave out. GPUPORTION_TEST_LONG=1: 64 processes for a minute, 10 000 kills, 1 000 stops; what they did
stays in the build's folder (storm_record.py).
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpuportion.allocator import pages
from gpuportion.simgpu import state
from tests.native import capped, storm_record
from tests.native.ledger_build import FLAGS, call, have_compiler
from tests.native.storm_clients import FREE, POOL, PROBE, ROUNDS, STORM, WAIT, Storm
from tests.native.storm_record import LONG
from tests.simgpu.driver import MIB, OUT, OUT_OF_MEMORY, SUCCESS, Driver

pytestmark = pytest.mark.skipif(not have_compiler(), reason="needs a C compiler (cc)")

PROCESSES, THREADS = (64, 8) if LONG else (16, 8)
FIGHT, PLACES = (60.0, 200) if LONG else (2.0, 20)
KILLS, STOPS = (10_000, 1_000) if LONG else (200, 20)
CLIENTS, AT_ONCE = 8, 4
"""Of a storm of kills, and how many of them may die at one moment."""
DELAY = 10_000_000
LIMIT = 1024 * MIB
PAGE = 2 * MIB
"""Each process keeps one charged in advance, once it has had a small block."""


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


@pytest.mark.timeout(600 if LONG else 120)
def test_a_race_at_the_edge_of_a_grant(storm: Storm) -> None:
    """Many processes of 8 threads: after no grant has the GPU a byte too much, every thread gets its turns, and of
    all who ask for the last place exactly one gets it."""
    page, threads = storm.page, PROCESSES * THREADS
    with storm.record("race", storm_record.seed()) as record:
        page["phase"] = WAIT
        for _ in range(PROCESSES):
            storm.start(THREADS, look=True)
        storm.until(lambda: page["ready"] == threads)
        record.note(ready=threads)
        page["phase"] = FREE
        for _ in range(10):
            time.sleep(FIGHT / 10)
            record.note(**page.counted())
        storm.until(lambda: min(page["grants"], page["refusals"]) > 100)
        storm.until(lambda: min(page.calls(0, threads)) > 0)
        page["place"], page["rounds"] = LIMIT - PROCESSES * PAGE, PLACES
        page["phase"] = ROUNDS
        turns = page.calls(0, threads)
        record.note(fewest_calls=min(turns), usual=statistics.median(turns), most=max(turns))
        storm.until(lambda: page["round"] == PLACES)
        record.note(**page.counted())
        assert (page["over"], page["strange"], page["wrong"]) == (0, 0, 0)
        storm.end()
        storm.nothing_is_left()


def test_threads_that_share_a_pool_all_get_their_turns(storm: Storm) -> None:
    """However many more of them there are than processors: none is kept out by one that comes again at once."""
    page, threads = storm.page, 16 * 8
    page["phase"] = WAIT
    for _ in range(16):
        storm.start(8, look=True)
    storm.until(lambda: page["ready"] == threads)
    page["phase"] = POOL
    storm.until(lambda: sum(page.calls(0, threads)) >= 3000 * threads)
    turns = page.calls(0, threads)
    assert min(turns) * 20 > statistics.median(turns)
    assert (page["over"], page["strange"]) == (0, 0)


@pytest.mark.timeout(1500 if LONG else 200)
def test_clients_that_fork_and_are_killed_leave_nothing(storm: Storm) -> None:
    """At random instructions, on both sides of the driver's calls; now and then everybody is stopped and compared.
    Who had not come to its first call yet does not count as killed."""
    page, seed = storm.page, storm_record.seed()
    dice, killed, died, stops = random.Random(seed), 0, 0, 0
    with storm.record("kills", seed) as record:
        page["phase"] = STORM
        while killed < KILLS or stops < STOPS:
            while len(storm.clients) < CLIENTS:
                storm.start(2, look=False)
            time.sleep(dice.random() * 0.01)
            if stops * KILLS <= killed * STOPS:
                stops += 1
                storm.stop(storm.clients)
                held = storm.compare()
                if stops % 10 == 0:
                    record.note(killed=killed, died=died, stops=stops, held=held, **page.counted())
                storm.go_on(storm.clients)
            victims = dice.sample(storm.clients, dice.randint(1, AT_ONCE))
            died += len(victims)
            killed += storm.kill(victims)
        record.note(killed=killed, died=died, stops=stops, **page.counted())
        assert page["strange"] == 0
        assert min(page["grants"], page["refusals"], page["forks"]) > 0
        storm.end()
        storm.nothing_is_left()


@pytest.mark.timeout(600 if LONG else 120)
def test_who_is_stopped_delays_nobody(storm: Storm) -> None:
    """Several, at whatever instruction: another one goes on. How long its slowest call took, but for waiting for a
    processor (thread_delay.h), is printed; in the long run it must be less than 10 ms."""
    page, slowest = storm.page, list[float]()
    with storm.record("stops", storm_record.seed()) as record:
        storm.start(1, look=False)
        for _ in range(4):
            storm.start(2, look=False)
        others = storm.clients[1:]
        for stop in range(STOPS):
            page["phase"] = FREE
            time.sleep(0.01)
            storm.stop(others)
            page["slowest"], before = 0, page["grants"]
            page["phase"] = PROBE
            storm.until(lambda before=before: page["grants"] > before + 150)  # type: ignore[misc]
            slowest.append(page["slowest"] / 1e6)
            storm.go_on(others)
            if stop % 10 == 9:
                record.note(stops=stop + 1, slowest_ms=max(slowest), **page.counted())
        print(
            f"slowest calls beside stopped processes, ms: {[round(each, 2) for each in sorted(slowest)[-5:]]}"
        )
        if LONG:
            assert max(slowest) * 1e6 < DELAY


def test_a_limit_moves_under_load(storm: Storm) -> None:
    """Grown, more is granted at once; lowered, nothing more is, until all are below it; and then none goes over it."""
    page, total = storm.page, storm.driver.sim.state
    uuid = pages.read_policy(storm.policy).gpus[0].uuid
    for _ in range(4):
        storm.start(4, look=False)
    storm.until(lambda: page["refusals"] > 100)
    for limit in [256 * MIB, LIMIT, 512 * MIB, 128 * MIB, 2 * LIMIT, 64 * MIB] * (50 if LONG else 2):
        pages.set_limit(storm.policy, uuid, limit)
        # Who was let in before the change may still be on his way to the driver: the ledger has him already.
        storm.until(lambda limit=limit: all(storm.counted() <= limit for _ in range(3)))  # type: ignore[misc]
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
