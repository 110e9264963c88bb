"""The GPUs that serve portions, as placement.py takes them: what can be said of them before anybody asks.

A pool lasts while its GPUs stay as they are read, so that a request for one of them costs a few numbers a GPU. What
is granted is not known here. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from gpuportion.allocator import links
from gpuportion.allocator.devices import Gpu

KEPT: Final = 64
"""Sums of links that are remembered: for so many sets of GPUs that nobody has."""


@dataclass(frozen=True, slots=True, eq=False)
class Offer:
    """A healthy GPU, its place among those of the pool, and its numbers; bytes. `grantable`, `promised` and `unmanaged`
    as in Gpu; `ever` is what one grant could have if there were no strangers."""

    gpu: Gpu
    place: int
    uuid: str
    index: int
    grantable: int
    promised: int
    unmanaged: int
    ever: int

    @classmethod
    def of(cls, place: int, gpu: Gpu) -> Offer:
        grantable = gpu.grantable
        return cls(
            gpu=gpu,
            place=place,
            uuid=gpu.uuid,
            index=gpu.index,
            grantable=grantable,
            promised=gpu.promised,
            unmanaged=gpu.unmanaged,
            ever=grantable + gpu.unmanaged,
        )


class Pool:
    """All `gpus`, and of these the healthy ones by index."""

    __slots__ = ("_linked", "_ranks", "_uuids", "gpus", "healthy")

    def __init__(self, gpus: Sequence[Gpu]) -> None:
        self.gpus = tuple(gpus)
        healthy = sorted((gpu for gpu in gpus if not gpu.trouble), key=lambda gpu: gpu.index)
        self.healthy = tuple(Offer.of(place, gpu) for place, gpu in enumerate(healthy))
        self._uuids = frozenset(gpu.uuid for gpu in healthy)
        self._linked: dict[frozenset[str], dict[str, int]] = {}
        self._ranks: links.Ranks | None = None

    def linked(self, taken: Mapping[str, object]) -> Mapping[str, int]:
        """By UUID of the healthy ones, what their links to all those add up to that nobody has: which aren't in
        `taken`. Remembered, for the same few are empty for long."""
        empty = self._uuids.difference(taken)
        found = self._linked.get(empty)
        if found is None:
            if len(self._linked) == KEPT:
                self._linked.clear()
            gpus = [one.gpu for one in self.healthy]
            found = self._linked[empty] = links.sums(gpus, [gpu for gpu in gpus if gpu.uuid in empty])
        return found

    def ranks(self, some: Sequence[Offer]) -> links.Ranks:
        """Of each of `some` to each. Looked up when several are asked for at once, and not before."""
        if self._ranks is None:
            self._ranks = links.ranks([one.gpu for one in self.healthy])
        return [[self._ranks[one.place][other.place] for other in some] for one in some]
