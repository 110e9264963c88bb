"""Whose an account is when its process is killed, forks, executes, or loses its descriptors."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Final

import pytest

from gpuportion.allocator import pages
from gpuportion.allocator.pages import Pages
from tests.native.ledger_build import compile_program, have_compiler
from tests.native.ledger_process import LIMIT, MIB, Driver, Start, used

pytestmark = pytest.mark.skipif(not have_compiler(), reason="needs a C compiler (cc)")


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


def test_exec_ends_a_process_account(start: Start, made: Pages) -> None:
    """exec closes the driver's descriptors, and with them the memory; and so our lock."""
    one, two = start(), start()
    one.tell("reserve", LIMIT)
    one.tell("become")
    while pages.holders(made.ledger):
        time.sleep(0.001)
    assert two.tell("reserve", LIMIT) == "granted"


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
