"""Work in turns, in one thread."""

from __future__ import annotations

import select
from collections.abc import Iterator

import pytest

from gpuportion.allocator.pending import Steps, drive
from gpuportion.allocator.turns import Turns


@pytest.fixture
def short() -> Iterator[Turns]:
    """Turns that are over as soon as they begin."""
    turns = Turns(0)
    yield turns
    turns.close()


def is_awake(turns: Turns) -> bool:
    return bool(select.select([turns.wake], [], [], 0)[0])


def test_what_takes_less_than_a_turn_is_done_at_once() -> None:
    """And the event loop never hears of it."""
    turns = Turns(3600)

    def work() -> Steps[int]:
        turn = turns.begin()
        for _ in range(1000):
            yield from turn.rest()
        return 7

    assert drive(work()).is_over and not is_awake(turns)
    turns.close()


def test_who_works_takes_turns_with_the_others(short: Turns) -> None:
    """One turn a call, first come first served; `wake` is readable until the last has ended."""
    done: list[str] = []

    def work(name: str) -> Steps[None]:
        turn = short.begin()
        for step in range(2):
            yield from turn.rest()
            done.append(f"{name}{step}")

    one, other = drive(work("a")), drive(work("b"))
    assert done == []
    for wanted in (["a0"], ["a0", "b0"], ["a0", "b0", "a1"], ["a0", "b0", "a1", "b1"]):
        assert is_awake(short)
        short.go_on()
        assert done == wanted
    assert one.is_over and other.is_over and not is_awake(short)


def test_who_comes_when_all_had_gone_is_served_as_well(short: Turns) -> None:
    """The descriptor wakes for each crowd anew."""

    def work() -> Steps[None]:
        yield from short.begin().rest()

    for _ in range(3):
        result = drive(work())
        assert is_awake(short)
        short.go_on()
        assert result.is_over and not is_awake(short)


def test_a_turn_that_fails_is_over(short: Turns) -> None:
    """The others have theirs, and nothing wakes for it again."""
    done = []

    def work(is_good: bool) -> Steps[None]:
        yield from short.begin().rest()
        if not is_good:
            raise LookupError
        done.append(True)

    drive(work(False))
    drive(work(True))
    with pytest.raises(LookupError):
        short.go_on()
    short.go_on()
    assert done == [True] and not is_awake(short)
