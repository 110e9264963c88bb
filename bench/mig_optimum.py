"""The best that any way of placing can do on a small node, by trying them all: every state, every choice.

The node's states are all legal sets of instances in use; of each request every placement is considered, and its worth
for all the future found by value iteration. It never refuses what fits, as no way of placing here does, and
knows the mix and the load, which no daemon can."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from mig_node import Arrival, Place
from numpy.typing import NDArray

from gpuportion.allocator.mig.geometry import Geometry
from gpuportion.allocator.mig.profiles import Profile

State = tuple[tuple[tuple[int, int], ...], ...]
"""For each GPU the profile ids and masks in use, in order."""

ENOUGH: Final = 1e-6
"""The worth of states is known when it changes by less, against each other."""


class Optimum:
    """A node of `gpus` boards that places in the best way for requests `rates` (a time unit) of profiles."""

    def __init__(self, board: Geometry, gpus: int, rates: Mapping[Profile, float]) -> None:
        self._now: State = ((),) * gpus
        self._choices = {profile.id: board.masks[profile.id] for profile in rates}
        self._states = _reachable(((),) * gpus, self._choices)
        self._numbers = {state: number for number, state in enumerate(self._states)}
        self._worth = self._iterated({profile.id: rate for profile, rate in rates.items()})

    def fresh(self) -> Optimum:
        """Itself, with nothing in use."""
        self._now = ((),) * len(self._now)
        return self

    def take(self, arrival: Arrival) -> Place | None:
        id = arrival.profile.id
        ways = _successors(self._now, id, self._choices[id])
        if not ways:
            return None
        state, place = max(ways, key=lambda way: self._worth[self._numbers[way[0]]])
        self._now = state
        return place

    def release(self, place: Place, now: float) -> None:
        here = tuple(each for each in self._now[place.gpu] if each[1] != place.mask)
        self._now = (*self._now[: place.gpu], here, *self._now[place.gpu + 1 :])

    def _iterated(self, rates: Mapping[int, float]) -> NDArray[np.float64]:
        """Relative value iteration on the chain that looks at the clock at one even rate."""
        arrivals = {id: self._table(self._after_arrival(id)) for id in rates}
        ends = self._table([self._after_end(state) for state in self._states])
        live = np.array([sum(map(len, state)) for state in self._states])
        clock = sum(rates.values()) + live.max()
        worth = np.zeros(len(self._states) + 1)
        while True:
            worth[-1] = -np.inf
            next_ = worth[:-1] * (clock - sum(rates.values()) - live)
            next_ += np.where(np.isneginf(worth[ends]), 0.0, worth[ends]).sum(axis=1)
            for id, rate in rates.items():
                best = worth[arrivals[id]].max(axis=1)
                next_ += rate * np.where(np.isneginf(best), worth[:-1], 1 + best)
            next_ /= clock
            change = next_ - worth[:-1]
            worth[:-1] = next_ - next_[0]
            if change.max() - change.min() < ENOUGH:
                return worth[:-1]

    def _after_arrival(self, id: int) -> list[list[State]]:
        return [
            [after for after, _ in _successors(state, id, self._choices[id])] or [] for state in self._states
        ]

    def _after_end(self, state: State) -> list[State]:
        return [
            (*state[:gpu], tuple(each for each in here if each != gone), *state[gpu + 1 :])
            for gpu, here in enumerate(state)
            for gone in here
        ]

    def _table(self, rows: Sequence[Sequence[State]]) -> NDArray[np.int64]:
        """Numbers of states; -1, the last, stands for none."""
        table = np.full((len(rows), max(1, *map(len, rows))), -1, dtype=np.int64)
        for number, row in enumerate(rows):
            table[number, : len(row)] = [self._numbers[state] for state in row]
        return table


def _successors(state: State, id: int, masks: Sequence[int]) -> list[tuple[State, Place]]:
    found = []
    for gpu, here in enumerate(state):
        taken = sum(mask for _, mask in here)
        for mask in masks:
            if not mask & taken:
                after = (*state[:gpu], tuple(sorted((*here, (id, mask)))), *state[gpu + 1 :])
                found.append((after, Place(gpu, mask, False)))
    return found


def _reachable(empty: State, choices: Mapping[int, Sequence[int]]) -> list[State]:
    found, left = {empty: None}, [empty]
    while left:
        state = left.pop()
        for id, masks in choices.items():
            for after, _ in _successors(state, id, masks):
                if after not in found:
                    found[after] = None
                    left.append(after)
    return list(found)
