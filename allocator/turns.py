"""Work that is too long for the daemon's one thread to do in one go, done in turns: between two of them whoever else
has come is served, and those who work so take turns with each other.

    turn = turns.begin()
    for each in many:
        yield from turn.rest()
        ...

Knows nothing of the work, and of the event loop only that it calls `go_on` when `wake` is readable."""

from __future__ import annotations

import os
from collections import deque
from time import perf_counter
from typing import Final

from gpuportion.allocator.pending import Steps, Wait

TURN: Final = 0.0005
"""Seconds for which everybody else waits, and then as long as a step of the work takes."""


class Turns:
    """Who works in turns, first come first served. `wake`: an eventfd, readable while somebody waits for a turn."""

    def __init__(self, length: float = TURN) -> None:
        self.wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.length = length
        self._waiting: deque[Wait[None]] = deque()
        self._is_awake = False

    def begin(self) -> Turn:
        """The first turn of a work begins now."""
        return Turn(self)

    def next(self) -> Wait[None]:
        """Over when it is one's turn again."""
        wait: Wait[None] = Wait()
        self._waiting.append(wait)
        if not self._is_awake:
            self._is_awake = True
            os.eventfd_write(self.wake, 1)
        return wait

    def go_on(self) -> None:
        """Give one turn."""
        try:
            if self._waiting:
                self._waiting.popleft().end(None)
        finally:
            if not self._waiting:
                self._is_awake = False
                os.eventfd_read(self.wake)

    def close(self) -> None:
        os.close(self.wake)


class Turn:
    """The turns of one work."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._ends = perf_counter() + turns.length

    def rest(self) -> Steps[None]:
        """Let others go on, once this turn has lasted long enough."""
        if perf_counter() >= self._ends:
            yield self._turns.next()
            self._ends = perf_counter() + self._turns.length
