"""What the accounting grants and refuses, keeps count of and tells: real files, real processes."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final

import pytest

from gpuportion.allocator import pages
from gpuportion.allocator.pages import Pages
from tests.native.ledger_build import compile_program, have_compiler
from tests.native.ledger_process import LIMIT, MIB, UUIDS, Start, used

pytestmark = pytest.mark.skipif(not have_compiler(), reason="needs a C compiler (cc)")


def test_room_is_granted_up_to_the_limit_and_not_a_byte_beyond(start: Start) -> None:
    """Exactly the limit fits; one byte more does not; what is given back fits again."""
    one = start()
    assert one.tell("reserve", LIMIT) == "granted"
    assert one.tell("reserve", 1) == "refused"
    one.tell("release", 1)
    assert one.tell("reserve", 1) == "granted"


def test_gpus_are_accounted_apart(start: Start, made: Pages) -> None:
    """A full GPU leaves the other one as it was."""
    one = start()
    assert one.tell("reserve", LIMIT, gpu=0) == "granted"
    assert one.tell("reserve", LIMIT, gpu=1) == "granted"
    one.tell("release", LIMIT, gpu=0)
    assert (used(made, 0), used(made, 1)) == (0, LIMIT)


@pytest.mark.parametrize("gpu", [2, 16, 4_000_000_000])
def test_a_gpu_that_is_not_in_the_policy_is_a_failure(start: Start, gpu: int) -> None:
    """A wrong index reaches no memory and grants nothing."""
    assert start().tell("reserve", 1, gpu=gpu).startswith("failed: ")


@pytest.mark.parametrize("huge", [1 << 62, (1 << 63) - 1, (1 << 64) - 1])
def test_sums_do_not_wrap(start: Start, huge: int) -> None:
    """A size near 2^64 is refused, not added to something small."""
    one = start()
    assert one.tell("reserve", MIB) == "granted"
    assert one.tell("reserve", huge) == "refused"
    assert one.tell("charge", huge) == "refused"
    assert one.tell("own") == str(MIB)


def test_processes_share_one_limit(start: Start) -> None:
    """What one process holds, another one cannot have."""
    one, two = start(), start()
    assert one.tell("reserve", 600 * MIB) == "granted"
    assert two.tell("reserve", 600 * MIB) == "refused"
    assert two.tell("reserve", 400 * MIB) == "granted"
    assert two.tell("used") == str(LIMIT)


def test_of_many_racing_for_the_last_room_one_gets_it(start: Start) -> None:
    """Twelve ask at once for more than half: one grant."""
    racers = [start() for _ in range(12)]
    for racer in racers:
        assert racer.process.stdin
        racer.process.stdin.write(f"reserve 0 {LIMIT // 2 + 1}\n")
    for racer in racers:
        assert racer.process.stdin
        racer.process.stdin.flush()
    assert sorted(racer.line() for racer in racers) == ["granted"] + ["refused"] * 11


def test_giving_back_too_much_gives_back_what_is_held(start: Start) -> None:
    """A share never goes below zero, which would be room beyond the limit."""
    one = start()
    one.tell("reserve", 10 * MIB)
    one.tell("release", 900 * MIB)
    assert one.tell("own") == "0"
    assert one.tell("reserve", LIMIT + 1) == "refused"


def test_memory_taken_by_one_thread_can_be_freed_by_others(start: Start) -> None:
    """Lanes of sibling threads are one account."""
    one = start()
    one.tell("reserve", 160)
    one.tell("elsewhere", 160)
    assert one.tell("own") == "0"


def test_many_threads_leave_nothing_behind(start: Start, made: Pages) -> None:
    """Twelve threads on eight lanes: all they took they give back."""
    one = start()
    assert one.tell("threads", 20000) == "done"
    assert (one.tell("own"), used(made)) == ("0", 0)


def test_an_uncontended_grant_makes_no_system_call(start: Start) -> None:
    """seccomp's strict mode kills at the first one; giving back and asking for one's own use make none either."""
    one = start()
    one.tell("reserve", 1)
    assert one.tell("strictly", 100000) == "no system call"


def test_errno_is_left_alone(start: Start) -> None:
    """A CUDA call does not change errno; neither do grants, refusals and questions."""
    start().tell("reserve", 1)  # the next one tries a place that is taken
    assert start().tell("errno", MIB) == "4242"


def test_a_limit_grows_and_shrinks_under_running_processes(start: Start, made: Pages) -> None:
    """The next allocation sees it; shrinking below the use takes nothing away and refuses what is new."""
    one = start()
    one.tell("reserve", LIMIT)
    pages.set_limit(made.policy, UUIDS[0], 2 * LIMIT)
    assert one.tell("reserve", LIMIT) == "granted"
    pages.set_limit(made.policy, UUIDS[0], LIMIT)
    assert one.tell("reserve", 1) == "refused"
    assert one.tell("own") == str(2 * LIMIT)
    one.tell("release", LIMIT + 1)
    assert one.tell("reserve", 1) == "granted"


def test_what_exists_already_is_charged_beyond_the_limit(start: Start) -> None:
    """A context is there before it can be counted: it is counted all the same."""
    one = start()
    one.tell("reserve", LIMIT)
    assert one.tell("charge", 5) == "granted"
    assert one.tell("used") == str(LIMIT + 5)
    assert one.tell("reserve", 1) == "refused"


def test_processes_are_listed_largest_first(start: Start) -> None:
    """Only those that live and hold something; no more than there is room for."""
    one, two, three = start(), start(), start()
    for driver, amount in ((one, 1), (two, 3), (three, 2)):
        driver.tell("reserve", amount)
    idle = start()
    assert idle.tell("processes", 8) == f"{two.process.pid}=3 {three.process.pid}=2 {one.process.pid}=1"
    assert idle.tell("processes", 1) == f"{two.process.pid}=3"
    two.kill()
    assert idle.tell("processes", 8) == f"{three.process.pid}=2 {one.process.pid}=1"


def test_peaks_and_refusals_are_kept(start: Start, made: Pages) -> None:
    """For the container and for each process; a refusal leaves who, what and how much."""
    one = start()
    one.tell("reserve", 700 * MIB)
    one.tell("release", 699 * MIB)
    one.tell("note", 12345)
    view = pages.read_ledger(made.ledger)
    assert (view.gpus[0].peak, view.gpus[0].refusals) == (700 * MIB, 1)
    assert (view.gpus[0].processes[0].peak, view.gpus[0].processes[0].refusals) == (700 * MIB, 1)
    last = view.notes[-1]
    assert (last.number, last.pid, last.asked, last.used) == (1, one.process.pid, 12345, MIB)
    assert (last.limit, last.gpu, last.api) == (LIMIT, 0, "cuMemAllocFromPoolAsync")


def test_the_last_sixteen_refusals_are_kept(start: Start, made: Pages) -> None:
    """Older ones make room."""
    one = start()
    for amount in range(1, 21):
        one.tell("note", amount)
    assert [note.asked for note in pages.read_ledger(made.ledger).notes] == list(range(5, 21))


EVERY_WORD: Final = [
    *("threads 0 3000", "reserve 1 4096", "reserve 0 99999999999", "note 0 1", "processes 0 4", "used 1 0"),
    *("elsewhere 0 160", "fork-release 1 4096", "errno 0 5", "release 1 9999", "close-all 0 0", "used 0 0"),
    *("reserve 0 1", "reserve 7 1", "own 0 0"),
]


@pytest.mark.parametrize("sanitizer", ["thread", "address,undefined"])
def test_sanitizers_find_nothing(tmp_path: Path, made: Pages, sanitizer: str) -> None:
    """Threads that share lanes, forks, losses of a cell, questions: no race, no stray access, no overflow."""
    source = Path(__file__).with_name("ledger_driver.c")
    flags = ("-g", f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all")
    try:
        program = compile_program(tmp_path / "sanitized", [source], *flags)
    except AssertionError as problem:
        pytest.skip(f"the compiler has no -fsanitize={sanitizer}: {str(problem).splitlines()[-1]}")
    done = subprocess.run(
        [str(program), made.ledger, made.policy],
        input="\n".join(EVERY_WORD),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == len(EVERY_WORD) + 1
