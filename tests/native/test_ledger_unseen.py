"""What the policy tells a process that it holds unseen, and what that process makes of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpuportion.allocator import pages
from gpuportion.allocator.pages import GpuLimit, Pages, Process
from tests.native.ledger_build import have_compiler
from tests.native.ledger_process import LIMIT, MIB, Driver, Start

pytestmark = pytest.mark.skipif(not have_compiler(), reason="needs a C compiler (cc)")


def cell_of(made: Pages, driver: Driver, gpu: int = 0) -> Process:
    (found,) = (
        one for one in pages.read_ledger(made.ledger).gpus[gpu].processes if one.pid == driver.process.pid
    )
    return found


def tell(made: Pages, driver: Driver, held: int, gpu: int = 0) -> None:
    pages.set_unseen(made.policy, gpu, cell_of(made, driver, gpu), held)


def test_unseen_memory_is_charged_at_the_next_call(start: Start, made: Pages) -> None:
    """And shown for what it is; on that GPU and no other."""
    one = start()
    assert one.tell("reserve", MIB, gpu=0) == one.tell("reserve", MIB, gpu=1) == "granted"
    tell(made, one, 100 * MIB, gpu=1)
    assert cell_of(made, one, 1).used == MIB
    assert one.tell("reserve", MIB, gpu=0) == one.tell("reserve", MIB, gpu=1) == "granted"
    assert (cell_of(made, one, 1).used, cell_of(made, one, 1).unseen) == (102 * MIB, 100 * MIB)
    assert (cell_of(made, one, 0).used, cell_of(made, one, 0).unseen) == (2 * MIB, 0)


def test_it_shrinks_and_ends_as_it_is_told(start: Start, made: Pages) -> None:
    """Each word is what it holds then, not what comes on top. Pages of 4096 bytes are the unit."""
    one = start()
    one.tell("reserve", MIB)
    for held in (100 * MIB, 100 * MIB, 40 * MIB, 1, 0, 7 * MIB):
        tell(made, one, held)
        one.tell("reserve", 1)
        one.tell("release", 1)
        assert cell_of(made, one).used == MIB + -(-held // 4096) * 4096


def test_it_takes_room_from_the_limit_and_is_never_refused_itself(start: Start, made: Pages) -> None:
    """It is there already: the next who asks is refused, a neighbour in the container too."""
    one, other = start(), start()
    assert one.tell("reserve", LIMIT - MIB) == "granted"
    tell(made, one, 2 * MIB)
    assert one.tell("reserve", 1) == "refused"
    assert other.tell("reserve", 1) == "refused"
    assert one.tell("used") == str(LIMIT + MIB)
    tell(made, one, 0)
    assert one.tell("reserve", 1) == "granted"


def test_it_is_gone_with_its_process(start: Start, made: Pages) -> None:
    """Without anybody's help: the daemon may be down."""
    one, other = start(), start()
    assert one.tell("reserve", MIB) == "granted"
    tell(made, one, LIMIT)
    assert one.tell("reserve", 1) == "refused"
    one.kill()
    assert other.tell("reserve", LIMIT) == "granted"


def test_a_word_about_the_last_owner_of_a_cell_is_not_heeded(start: Start, made: Pages) -> None:
    """The place is the same, the process another."""
    one = start()
    one.tell("reserve", MIB)
    place = cell_of(made, one)
    tell(made, one, 100 * MIB)
    one.kill()
    other = start()
    assert other.tell("reserve", MIB) == "granted"
    assert cell_of(made, other).cell == place.cell
    assert other.tell("reserve", MIB) == "granted"
    assert cell_of(made, other).used == 2 * MIB
    pages.set_unseen(made.policy, 0, place, 50 * MIB)
    assert other.tell("reserve", MIB) == "granted"
    assert cell_of(made, other).used == 3 * MIB


def test_it_goes_along_when_a_cell_is_lost(start: Start, made: Pages) -> None:
    """A process that closes descriptors which aren't its own moves to another cell, with all that it holds."""
    one = start()
    one.tell("reserve", MIB)
    tell(made, one, 100 * MIB)
    one.tell("reserve", MIB)
    assert one.tell("close-all") == "done"
    other = start()
    assert other.tell("reserve", LIMIT - 50 * MIB) == "granted"
    other.tell("release", LIMIT - 50 * MIB)
    one.tell("reserve", MIB)
    assert (cell_of(made, one).used, cell_of(made, one).unseen) == (103 * MIB, 100 * MIB)
    tell(made, one, 60 * MIB)
    one.tell("reserve", MIB)
    assert (cell_of(made, one).used, cell_of(made, one).unseen) == (64 * MIB, 60 * MIB)


def as_older(policy: str) -> None:
    """The page as layout 1 has it: shorter, and of that version."""
    data = bytearray(Path(policy).read_bytes())
    data[8:12] = (1).to_bytes(4, "little")
    Path(policy).write_bytes(data[:2048])


def test_pages_of_the_older_layout_serve_on(program: Path, start: Start, made: Pages) -> None:
    """A daemon that was upgraded reads them, resizes them, and has nothing to tell by them."""
    as_older(made.policy)
    assert pages.read_policy(made.policy).gpus[0] == GpuLimit(bytes(range(16)), LIMIT)
    one = start()
    assert one.greeting == "ready"
    assert one.tell("reserve", LIMIT) == "granted"
    pages.set_unseen(made.policy, 0, cell_of(made, one), MIB)
    pages.set_limit(made.policy, bytes(range(16)), 2 * LIMIT)
    assert one.tell("reserve", LIMIT) == "granted"
    assert one.tell("reserve", 1) == "refused"
    assert Path(made.policy).stat().st_size == 2048


@pytest.mark.parametrize("size", [2047, 2048, 2048 + 2 * 2048 - 1])
def test_a_policy_that_is_cut_short_is_none(program: Path, start: Start, made: Pages, size: int) -> None:
    """Neither to the daemon nor to the library."""
    Path(made.policy).write_bytes(Path(made.policy).read_bytes()[:size])
    with pytest.raises(pages.BadPageError):
        pages.read_policy(made.policy)
    assert start().greeting == "policy: Bad message"
