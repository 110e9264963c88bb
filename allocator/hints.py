"""What makes the daemon look at a grant again: processes that end, deadlines, and messages.

None of it decides anything. A look that finds the container not empty yet is repeated, at first soon, then
once a second, until it is. Knows tokens, not grants."""

from __future__ import annotations

import heapq
import os
import select
import selectors
from typing import Final

from gpuportion.allocator.processes import has_exited

FIRST: Final = 0.01
LAST: Final = 1.0
"""Seconds between two looks at a container whose first process has ended."""

MOST: Final = 64
"""Ends of processes that are heard of at once; of the others the kernel tells again."""


class Hints:
    """Pidfds, and times. `now` is in seconds of CLOCK_BOOTTIME.

    The pidfds are in an epoll of their own, which is in the daemon's selector, with this object as its data: a
    selector's book for each of them, twice a life, would cost more than the kernel's."""

    def __init__(self, selector: selectors.BaseSelector) -> None:
        self._epoll = select.epoll()
        selector.register(self._epoll, selectors.EVENT_READ, self)
        self._pidfds: dict[str, int] = {}
        self._tokens: dict[int, str] = {}
        self._times: list[tuple[float, str]] = []
        self._next: dict[str, float] = {}
        self._wait: dict[str, float] = {}

    def watch(self, token: str, pidfd: int) -> None:
        """Look when this process ends. Takes the descriptor over; a former one of this grant is closed."""
        self._unwatch(token)
        self._pidfds[token], self._tokens[pidfd] = pidfd, token
        self._epoll.register(pidfd, select.EPOLLIN)

    def is_alive(self, token: str) -> bool:
        """Is there a watched process of this grant, and has it not ended?"""
        pidfd = self._pidfds.get(token)
        return pidfd is not None and not has_exited(pidfd)

    def take(self, now: float) -> None:
        """Hear of the watched processes that have ended."""
        for pidfd, _ in self._epoll.poll(0, MOST):
            token = self._tokens[pidfd]
            self._unwatch(token)
            self.soon(token, now)

    def soon(self, token: str, now: float) -> None:
        """Look at once, and often for a while."""
        self._wait.pop(token, None)
        self.at(token, now)

    def later(self, token: str, now: float) -> None:
        """Look again; each time after a longer wait."""
        wait = self._wait.get(token, FIRST)
        self._wait[token] = min(LAST, wait * 2)
        self.at(token, now + wait)

    def at(self, token: str, time: float) -> None:
        """Look at this time, unless a look is due before it."""
        if time < self._next.get(token, float("inf")):
            self._next[token] = time
            heapq.heappush(self._times, (time, token))

    def due(self, now: float) -> list[str]:
        """Tokens to look at now; each is then forgotten until the next hint."""
        tokens = []
        while self._times and self._times[0][0] <= now:
            time, token = heapq.heappop(self._times)
            if self._next.get(token) == time:
                del self._next[token]
                tokens.append(token)
        return tokens

    def timeout(self, now: float) -> float | None:
        """Seconds until something is due; None: nothing is."""
        while self._times and self._next.get(self._times[0][1]) != self._times[0][0]:
            heapq.heappop(self._times)
        return max(0.0, self._times[0][0] - now) if self._times else None

    def forget(self, token: str) -> None:
        self._unwatch(token)
        self._next.pop(token, None)
        self._wait.pop(token, None)

    def close(self) -> None:
        for token in list(self._pidfds):
            self._unwatch(token)
        self._epoll.close()

    def _unwatch(self, token: str) -> None:
        pidfd = self._pidfds.pop(token, None)
        if pidfd is not None:
            del self._tokens[pidfd]
            self._epoll.unregister(pidfd)
            os.close(pidfd)
