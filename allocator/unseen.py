"""What a container's processes hold on a GPU that their library cannot see: loaded code and its variables, a
context that is larger than the usual one.

NVML says what a process holds, its ledger what it counts. The two are read at different moments, so the
median of three differences decides; a process whose memory in NVML has not changed for so long is left
alone. Never less than nothing: what is counted may be more than what is held, by rule (managed memory, room
taken in advance). Knows neither NVML nor pages.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Container
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from gpuportion.sizes import MIB

MEASURES: Final = 3
SLACK: Final = MIB
"""Bytes by which what was said may be wrong."""


class Key(NamedTuple):
    """A process of a grant on a GPU; `pid` is the host's."""

    token: str
    uuid: str
    pid: int


@dataclass(slots=True)
class _Watch:
    held: int = -1
    differences: deque[int] = field(default_factory=lambda: deque(maxlen=MEASURES))
    looks: int = 0
    """That are to be taken at its ledger yet."""


class Unseen:
    """The processes that are watched."""

    def __init__(self) -> None:
        self._watched: dict[Key, _Watch] = {}

    def keep(self, alive: Container[Key]) -> None:
        """Forget the others."""
        self._watched = {key: watch for key, watch in self._watched.items() if key in alive}

    def is_due(self, key: Key, held: int) -> bool:
        """A sample says that the process holds `held` bytes: is its ledger to be looked at?"""
        watch = self._watched.setdefault(key, _Watch())
        if held != watch.held:
            watch.held, watch.looks = held, MEASURES
        return watch.looks > 0

    def looked(self, key: Key) -> None:
        """Its ledger is looked at, whatever is found there. It stays due until then: not all are looked at at once."""
        self._watched[key].looks -= 1

    def measure(self, key: Key, counted: int, said: int) -> int | None:
        """Its ledger counts `counted` bytes, of which `said` because it was told to. What it is to be told
        now, or None: nothing new."""
        watch = self._watched[key]
        watch.differences.append(watch.held - (counted - said))
        if len(watch.differences) < 2:
            return None
        middle = sorted(watch.differences)[(len(watch.differences) - 1) // 2]
        found = max(0, middle)
        return found if abs(found - said) > SLACK else None
