"""The accounting on real files, by real processes that are killed, forked and executed."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Final

import pytest

from gpuportion.allocator import pages
from gpuportion.allocator.pages import Pages
from tests.native.ledger_build import compile_program, have_compiler
from tests.native.ledger_process import LIMIT, MIB, UUIDS, Driver, Start

pytestmark = pytest.mark.skipif(not have_compiler(), reason="needs a C compiler (cc)")


def used(made: Pages, gpu: int = 0) -> int:
    return pages.read_ledger(made.ledger).gpus[gpu].used


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


def total(made: Pages) -> int:
    """The word that everybody changes: what is in use and what lanes keep."""
    with open(made.ledger, "rb") as file:
        file.seek(12288)
        return int.from_bytes(file.read(8), "little")


def keep(one: Driver, size: int) -> None:
    """Have it keep so much that it does not use: from the second release on the total stays as it is."""
    assert one.tell("reserve", 2 * size) == "granted"
    one.tell("release", size)
    one.tell("release", size)


def test_what_a_process_keeps_is_in_nobodys_use(start: Start, made: Pages) -> None:
    """It serves its own next request; every figure is without it, the peak of one thread too."""
    one = start()
    keep(one, 40 * MIB)
    assert (total(made), used(made), one.tell("used"), one.tell("own")) == (40 * MIB, 0, "0", "0")
    assert one.tell("reserve", 30 * MIB) == "granted"
    assert (total(made), used(made), one.tell("used")) == (40 * MIB, 30 * MIB, str(30 * MIB))
    assert one.tell("reserve", 50 * MIB) == "granted"
    assert (total(made), used(made)) == (80 * MIB, 80 * MIB)
    assert pages.read_ledger(made.ledger).gpus[0].peak == 80 * MIB


def test_what_a_process_keeps_another_one_gets(start: Start, made: Pages) -> None:
    """Nobody is refused for what nobody uses."""
    one, two = start(), start()
    assert one.tell("reserve", 100 * MIB) == "granted"
    keep(one, 40 * MIB)
    assert total(made) == 140 * MIB
    assert two.tell("reserve", LIMIT - 100 * MIB) == "granted"
    assert (total(made), used(made)) == (LIMIT, LIMIT)
    assert one.tell("reserve", 1) == "refused"


def test_what_a_killed_process_kept_is_free(start: Start, made: Pages) -> None:
    """With what it held, and no more."""
    one, two = start(), start()
    assert one.tell("reserve", 100 * MIB) == "granted"
    keep(one, 40 * MIB)
    one.kill()
    assert two.tell("reserve", LIMIT) == "granted"
    assert (total(made), used(made)) == (LIMIT, LIMIT)


def test_a_lowered_limit_counts_for_what_is_kept(start: Start, made: Pages) -> None:
    """A process over its limit is granted nothing, out of what it keeps neither."""
    one = start()
    assert one.tell("reserve", 100 * MIB) == "granted"
    keep(one, 40 * MIB)
    pages.set_limit(made.policy, UUIDS[0], 90 * MIB)
    assert one.tell("reserve", 4096) == "refused"
    pages.set_limit(made.policy, UUIDS[0], 101 * MIB)
    assert one.tell("reserve", MIB) == "granted"


def test_in_a_ledger_of_an_older_layout_nothing_is_kept(start: Start, made: Pages) -> None:
    """Its other processes may not know of it."""
    with open(made.ledger, "r+b") as file:
        file.seek(8)
        file.write(bytes([2]))
    one = start()
    keep(one, 40 * MIB)
    assert (total(made), used(made)) == (0, 0)


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


def test_what_a_killed_process_held_is_free_at_once(start: Start, made: Pages) -> None:
    """A request that fits once the dead are discounted is granted; nobody has to clean up first."""
    one, two = start(), start()
    assert one.tell("reserve", LIMIT) == "granted"
    assert two.tell("reserve", LIMIT) == "refused"
    one.kill()
    assert two.tell("reserve", LIMIT) == "granted"
    assert used(made) == LIMIT


def test_a_forked_child_keeps_its_parents_share_alive(start: Start, made: Pages) -> None:
    """Device memory lives as long as the last inherited descriptor; so does its account."""
    one, two = start(), start()
    one.tell("reserve", LIMIT)
    child = int(one.tell("keep"))
    one.kill()
    assert two.tell("reserve", 1) == "refused"
    assert pages.holders(made.ledger) == 2
    os.kill(child, signal.SIGKILL)
    while pages.holders(made.ledger) == 2:
        time.sleep(0.001)
    assert two.tell("reserve", LIMIT) == "granted"


def test_a_forked_child_accounts_for_itself(start: Start, made: Pages) -> None:
    """It has a cell of its own, and what it holds outlives its parent's death."""
    one = start()
    assert one.tell("reserve", 10 * MIB) == "granted"
    assert one.tell("fork-reserve", 20 * MIB) == "granted"
    processes = pages.read_ledger(made.ledger).gpus[0].processes
    one.children = [process.pid for process in processes if process.pid != one.process.pid]
    assert sorted(process.used for process in processes) == [10 * MIB, 20 * MIB]
    assert one.tell("own") == str(10 * MIB)


KERNEL_BEFORE_4_14: Final = """
#include <errno.h>
#include <stddef.h>
int __wrap_madvise(void *at, size_t bytes, int advice);
int __wrap_madvise(void *at, size_t bytes, int advice) {
    errno = EINVAL;
    (void)at, (void)bytes, (void)advice;
    return -1;
}
"""


def test_a_fork_is_noticed_where_the_kernel_does_not_wipe(tmp_path: Path, made: Pages) -> None:
    """By the pid, before 4.14 or where a sandbox forbids madvise: the child has a cell of its own there, too."""
    (tmp_path / "old.c").write_text(KERNEL_BEFORE_4_14)
    sources = [Path(__file__).with_name("ledger_driver.c"), tmp_path / "old.c"]
    one = Driver(compile_program(tmp_path / "driver", sources, "-Wl,--wrap=madvise"), made)
    try:
        assert one.tell("reserve", 10 * MIB) == "granted"
        assert one.tell("fork-reserve", 20 * MIB) == "granted"
        processes = pages.read_ledger(made.ledger).gpus[0].processes
        one.children = [process.pid for process in processes if process.pid != one.process.pid]
        assert sorted(process.used for process in processes) == [10 * MIB, 20 * MIB]
    finally:
        one.end()


def test_a_child_finds_the_ledger_where_its_path_leads_elsewhere(start: Start, made: Pages) -> None:
    """After a chroot or a move the descriptor serves; a file that merely has the name is not taken."""
    one = start()
    os.rename(made.ledger, f"{made.ledger}.moved")
    try:
        assert one.tell("reserve", 5 * MIB) == "granted"
        assert pages.read_ledger(f"{made.ledger}.moved").gpus[0].used == 5 * MIB
    finally:
        os.rename(f"{made.ledger}.moved", made.ledger)


def test_a_child_cannot_give_back_its_parents_memory(start: Start, made: Pages) -> None:
    """It does not hold it: the driver, too, would refuse."""
    one = start()
    one.tell("reserve", 10 * MIB)
    one.tell("fork-release", 10 * MIB)
    assert used(made) == 10 * MIB


def test_giving_back_too_much_gives_back_what_is_held(start: Start) -> None:
    """A share never goes below zero, which would be room beyond the limit."""
    one = start()
    one.tell("reserve", 10 * MIB)
    one.tell("release", 900 * MIB)
    assert one.tell("own") == "0"
    assert one.tell("reserve", LIMIT + 1) == "refused"


def test_exec_ends_a_process_account(start: Start, made: Pages) -> None:
    """exec closes the driver's descriptors, and with them the memory; and so our lock."""
    one, two = start(), start()
    one.tell("reserve", LIMIT)
    one.tell("become")
    while pages.holders(made.ledger):
        time.sleep(0.001)
    assert two.tell("reserve", LIMIT) == "granted"


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


def test_descriptors_closed_behind_our_back_lose_no_account(start: Start, made: Pages) -> None:
    """A daemon that closes 3..1023 goes on with all it held, in another cell, and within the limit."""
    one, two = start(), start()
    one.tell("reserve", 600 * MIB)
    one.tell("close-all")
    assert one.tell("used") == str(600 * MIB)
    assert two.tell("reserve", 300 * MIB) == "granted"
    assert one.tell("reserve", 500 * MIB) == "refused"
    assert one.tell("reserve", 100 * MIB) == "granted"
    assert used(made) == LIMIT


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


def test_a_full_table_is_a_refusal_with_a_reason(start: Start, made: Pages) -> None:
    """The 257th process gets no cell, and no memory; when one ends, the next gets its place."""
    first = start()
    first.tell("reserve", 1)
    for _ in range(pages.CELLS - 1):
        assert first.tell("fork-reserve", 1) == "granted"
    first.children = [each.pid for each in pages.read_ledger(made.ledger).gpus[0].processes]
    first.children.remove(first.process.pid)
    late = start()
    assert late.tell("reserve", 1) == "failed: all 256 places for processes are taken"
    os.kill(first.children.pop(), signal.SIGKILL)
    while pages.holders(made.ledger) == pages.CELLS:
        time.sleep(0.001)
    assert late.tell("reserve", 1) == "granted"


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


@pytest.mark.parametrize("spoil", ["truncate", "grow", "scribble", "empty"])
def test_what_is_no_ledger_is_not_attached(program: Path, made: Pages, spoil: str) -> None:
    """A process that starts on a damaged ledger is told so, and gets nothing."""
    size = os.stat(made.ledger).st_size
    if spoil == "scribble":
        with open(made.ledger, "r+b") as file:
            file.write(b"\xff" * 4096)
    else:
        os.truncate(made.ledger, {"truncate": 8192, "grow": size + 1, "empty": 0}[spoil])
    driver = Driver(program, made)
    driver.end()
    assert driver.greeting == "ledger: Bad message"


@pytest.mark.parametrize("word", [0, 8, 12, 16, 20], ids=["magic", "version", "gpus", "cells", "lanes"])
def test_every_word_of_a_ledgers_header_counts(program: Path, made: Pages, word: int) -> None:
    """Each says how the rest is read: one that differs is another layout."""
    with open(made.ledger, "r+b") as file:
        file.seek(word)
        byte = file.read(1)
        file.seek(word)
        file.write(bytes([byte[0] ^ 128]))
    driver = Driver(program, made)
    driver.end()
    assert driver.greeting == "ledger: Bad message"


@pytest.mark.parametrize("version", [0, 99])
def test_a_policy_of_another_version_is_said_to_be_one(program: Path, made: Pages, version: int) -> None:
    """It is whole; only we cannot read it."""
    with open(made.policy, "r+b") as file:
        file.seek(8)
        file.write(version.to_bytes(4, "little"))
    driver = Driver(program, made)
    driver.end()
    assert driver.greeting == "policy: Protocol not supported"


def test_a_policy_that_is_none_is_not_taken(program: Path, made: Pages) -> None:
    """Neither a short file nor another magic or version, nor a count of GPUs out of bounds."""
    whole = Path(made.policy).read_bytes()
    for spoilt in (
        b"",
        whole[:100],
        b"x" + whole[1:],
        whole[:12] + b"\xff" + whole[13:],
        whole[:128] + b"x" * 1920,
    ):
        Path(made.policy).write_bytes(spoilt)
        driver = Driver(program, made)
        driver.end()
        assert driver.greeting == "policy: Bad message"


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
