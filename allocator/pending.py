"""Answers that take a while: an operation that waits is a generator, and goes on where it stopped.

    def operation(...) -> Steps[Message]:
        outcome = yield waited       # a Wait; meanwhile others are served
        return Message(...)

One thread. Knows nothing of what is waited for."""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator, Sequence
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Wait(Generic[T]):
    """Something that will be there later: a value, once."""

    __slots__ = ("_then", "_value")

    def __init__(self, *value: T) -> None:
        """`value`: it is there already."""
        self._value: Sequence[T] = value
        self._then: Callable[[T], None] | None = None

    @property
    def is_over(self) -> bool:
        return bool(self._value)

    def end(self, value: T) -> None:
        """It is there. Of several ends the first one counts."""
        if self._value:
            return
        self._value = (value,)
        then, self._then = self._then, None
        if then is not None:
            then(value)

    def then(self, call: Callable[[T], None]) -> None:
        """Call this with the value; at once, if it is there."""
        if self._value:
            call(self._value[0])
        else:
            self._then = call


Steps = Generator[Wait[Any], Any, T]


def drive(steps: Steps[T]) -> Wait[T]:
    """Run `steps` as far as they go now; what they return, or raise as soon as they are run, comes by the Wait.

    What they raise is theirs to catch: after the first wait nobody else could."""
    result: Wait[T] = Wait()
    _go_on(steps, result, None)
    return result


def _go_on(steps: Steps[T], result: Wait[T], value: Any) -> None:
    """Nothing here refers to itself: what a request brought is let go with its answer, not when Python looks for
    circles."""
    try:
        waited = steps.send(value)
    except StopIteration as end:
        result.end(end.value)
        return
    waited.then(functools.partial(_go_on, steps, result))
