"""Who lives on: processes that were met once, and of whose end the kernel tells by a pidfd.

While its pidfd has not become readable, a pid is that process's and nobody else's, so nothing has to be read of it in
/proc again: two hundred processes cost one system call. At most MOST of them are kept so; of the others, and of those
that can't be held, /proc is asked each time. Knows nothing of grants or GPUs.
"""

from __future__ import annotations

import os
import select
from collections.abc import Container
from typing import Final

from gpuportion.allocator.processes import has_exited, start_of

MOST: Final = 4096
"""Each is a descriptor."""


class Lives:
    """Processes by pid, of this daemon's own pid namespace."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._poll = select.epoll()
        self._held: dict[int, tuple[int, int]] = {}
        self._pids: dict[int, int] = {}

    def start_of(self, pid: int) -> int | None:
        """When process `pid` began, in clock ticks since boot; None: there is none. A zombie still counts."""
        held = self._held.get(pid)
        return held[1] if held is not None else self._meet(pid)

    def look(self) -> bool:
        """Let go who has ended since the last look; whether anybody has."""
        ended = self._poll.poll(0, maxevents=self._most)
        for pidfd, _ in ended:
            self._drop(self._pids[pidfd])
        return bool(ended)

    def keep(self, wanted: Container[int]) -> None:
        """Let go all others."""
        for pid in [pid for pid in self._held if pid not in wanted]:
            self._drop(pid)

    def close(self) -> None:
        self.keep(())
        self._poll.close()

    def _meet(self, pid: int) -> int | None:
        if len(self._held) >= self._most:
            return start_of(pid)
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:  # it is gone, or no descriptor is left
            return start_of(pid)
        start = start_of(pid)
        if start is None or has_exited(pidfd):
            os.close(pidfd)
            return start
        self._poll.register(pidfd, select.EPOLLIN)
        self._held[pid] = pidfd, start
        self._pids[pidfd] = pid
        return start

    def _drop(self, pid: int) -> None:
        pidfd, _ = self._held.pop(pid)
        del self._pids[pidfd]
        os.close(pidfd)
