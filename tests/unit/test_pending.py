"""Operations that wait, in one thread."""

from __future__ import annotations

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
