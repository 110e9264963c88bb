"""Operations that wait, in one thread."""

from __future__ import annotations

import gc
import weakref

import pytest

from gpuportion.allocator.pending import Steps, Wait, drive


def test_what_does_not_wait_is_there_at_once() -> None:
    """As if it were no generator."""

    def steps() -> Steps[int]:
        return 7
        yield

    assert drive(steps()).is_over


def test_it_goes_on_with_what_it_waited_for() -> None:
    """Over several waits, of which one is over before it is waited for."""
    first: Wait[int] = Wait()
    second: Wait[int] = Wait()
    second.end(20)
    told: list[int] = []

    def steps() -> Steps[int]:
        one = yield first
        other = yield second
        return int(one + other)

    result = drive(steps())
    result.then(told.append)
    assert not result.is_over and told == []
    first.end(1)
    assert result.is_over and told == [21]


def test_the_first_end_counts() -> None:
    """A time-out, and then what was waited for."""
    told: list[int | None] = []
    wait: Wait[int | None] = Wait()
    wait.then(told.append)
    wait.end(None)
    wait.end(3)
    assert told == [None]


@pytest.mark.parametrize("waits", [False, True])
def test_an_answer_is_let_go_when_it_was_sent(waits: bool) -> None:
    """Without Python's search for circles, which comes late and keeps everybody waiting: it has the whole spec."""

    class Answer:
        pass

    def operation(waited: Wait[int]) -> Steps[Answer]:
        if waits:
            yield waited
        return Answer()

    gc.disable()
    try:
        waited, seen = Wait[int](), list[weakref.ref[Answer]]()
        drive(operation(waited)).then(lambda answer: seen.append(weakref.ref(answer)))
        waited.end(0)
        assert seen[0]() is None
    finally:
        gc.enable()
