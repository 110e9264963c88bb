"""How much a placement spoils: the room that it takes from what is likely to be asked for next.

Pure numbers; knows nothing of which instances are idle, or of any rule that is not a preference."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from gpuportion.allocator.mig.asks import Ask, fitting
from gpuportion.allocator.mig.geometry import Geometry

WINDOW: Final = 128
"""Requests that are remembered."""

PRIOR: Final = 6.0
"""Requests that a node is taken to have had before the first, one part for each shape of its board: a few real ones
soon weigh more, and nothing is ever quite ruled out."""


@dataclass(frozen=True, slots=True, eq=False)
class RecentMix:
    """The last requests, served or not, as they were asked. A value: `after` gives the next one."""

    asks: tuple[Ask, ...] = ()
    counts: Mapping[Ask, int] = field(default_factory=dict)

    def after(self, ask: Ask) -> RecentMix:
        """With one more request; the oldest is forgotten."""
        counts = dict(self.counts)
        counts[ask] = counts.get(ask, 0) + 1
        asks = (*self.asks, ask)
        if len(asks) > WINDOW:
            counts[asks[0]] -= 1
            if not counts[asks[0]]:
                del counts[asks[0]]
            asks = asks[1:]
        return RecentMix(asks, counts)

    def weights(self, board: Geometry) -> tuple[float, ...]:
        """For each shape of `board`, the part of the requests that want it; they add up to 1."""
        shapes = len(board.shapes)
        found = [PRIOR / shapes] * shapes if shapes else []
        for ask, count in self.counts.items():
            smallest = fitting(board, ask)[:1]
            for profile in smallest:
                found[board.shape_of[profile.id]] += count
        total = sum(found)
        return tuple(weight / total for weight in found)


class Score:
    """Of placements on boards of one geometry: the places that each makes unusable, by the mix.

    A place weighs by how often it is wanted and by the root of its slices. By all of them, whoever wants much counts
    most, and by none of them not at all: the one serves fewer requests, the other less memory. The root of them served
    the most requests in simulation (docs/benchmarks.md)."""

    def __init__(self, board: Geometry, mix: RecentMix) -> None:
        self._board = board
        self._weights = tuple(w * math.sqrt(s) for w, s in zip(mix.weights(board), board.sizes, strict=True))
        self._known: dict[tuple[int, int], float] = {}

    def added(self, taken: int, more: int) -> float:
        """For a placement of `more` beside `taken`: what could be placed before and can't be any more, weighed."""
        key = (taken, more)
        found = self._known.get(key)
        if found is None:
            before, after = self._board.room(taken), self._board.room(taken | more)
            lost = sum(w * (a - b) for w, a, b in zip(self._weights, before, after, strict=True))
            found = self._known[key] = round(lost, 9)
        return found
