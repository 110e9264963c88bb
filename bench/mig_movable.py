"""What a node of A100s would serve if the containers on it could be moved about: a measure for what placing can win.

Whoever asks is served if all who are there and the new one can be laid out anew on all GPUs. No daemon can do that;
a way of placing that comes near has little left to win. It is no bound at loads above 1: who serves whatever fits lets
in large requests, and loses several small ones for each."""

from __future__ import annotations

from collections import Counter
from typing import Final

from mig_node import Arrival, Place

from gpuportion.allocator.mig.geometry import Geometry

LAYOUT: Final = {
    # compute slices, memory slices -> where it may start: the boards of eight slices
    (1, 1): (0, 1, 2, 3, 4, 5, 6),
    (1, 2): (0, 2, 4, 6),
    (2, 2): (0, 2, 4),
    (3, 4): (0, 4),
    (4, 4): (0,),
    (7, 8): (0,),
}


class Movable:
    """Counts what is there, and asks `fits`."""

    def __init__(self, board: Geometry, gpus: int) -> None:
        kinds = {profile.id: (profile.compute, profile.size) for profile in board.profiles}
        for profile in board.profiles:
            assert LAYOUT[kinds[profile.id]] == profile.starts, "made for the layout of an A100"
        self._kinds, self._gpus = kinds, gpus
        self._there: Counter[tuple[int, int]] = Counter()

    def take(self, arrival: Arrival) -> Place | None:
        kind = self._kinds[arrival.profile.id]
        self._there[kind] += 1
        if fits(self._there, self._gpus):
            return Place(arrival.profile.id, 0, False)
        self._there[kind] -= 1
        return None

    def release(self, place: Place, now: float) -> None:
        self._there[self._kinds[place.gpu]] -= 1


def fits(there: Counter[tuple[int, int]], gpus: int) -> bool:
    """Whether so many instances of each kind of LAYOUT can be laid out on so many empty boards.

    A board is a lower half of two pairs of slices and an upper half, whose second pair takes a `1g` of one or of two
    slices but no `2g`, nor two of one slice. Whatever fits the upper half fits the lower one, so the largest go first,
    and each to the place that is good for the least."""
    boards = gpus - there[7, 8]
    lower, upper = boards - there[4, 4], boards
    in_upper = min(there[3, 4], upper)
    lower, upper = lower - (there[3, 4] - in_upper), upper - in_upper
    pairs, poor = 2 * lower + upper - there[2, 2], upper
    if min(boards, lower, pairs) < 0:
        return False
    in_poor = min(there[1, 2], poor)
    pairs, poor = pairs - (there[1, 2] - in_poor), poor - in_poor
    return pairs >= 0 and there[1, 1] <= 2 * pairs + poor
