"""What a process keeps of what it gave back: nobody's use, and anybody's room."""

from __future__ import annotations

import pytest

from gpuportion.allocator import pages
from gpuportion.allocator.pages import Pages
from tests.native.ledger_build import have_compiler
from tests.native.ledger_process import LIMIT, MIB, UUIDS, Driver, Start, used

pytestmark = pytest.mark.skipif(not have_compiler(), reason="needs a C compiler (cc)")


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
