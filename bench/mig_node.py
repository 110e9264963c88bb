"""A node whose MIG requests come and go, in no time at all: what `bench/mig.py` measures.

Requests arrive at random (Poisson), live for a random time (exponential, mean 1) and are lost where they are
refused. The same trace is played to every way of placing, so that differences are not luck. Knows nothing of what is
compared, and prints nothing."""

from __future__ import annotations

import heapq
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

from gpuportion.allocator.mig.asks import ask_of, fitting
from gpuportion.allocator.mig.fragmentation import RecentMix
from gpuportion.allocator.mig.geometry import Geometry, first
from gpuportion.allocator.mig.instances import Instance, MigGpu
from gpuportion.allocator.mig.planner import Plan, Policy, plan
from gpuportion.allocator.mig.profiles import Profile
from gpuportion.shim.request import Request

WARMING: Final = 0.3
"""Of a trace: the part that fills the node and is not counted."""

Mix = Mapping[Request, float]


class Arrival(NamedTuple):
    at: float
    want: Request
    profile: Profile
    end: float


class Place(NamedTuple):
    """Where a request was served, and what that took."""

    gpu: int
    mask: int
    reused: bool


class Node(Protocol):
    """A way of placing, with what it has placed."""

    def take(self, arrival: Arrival) -> Place | None: ...
    def release(self, place: Place, now: float) -> None: ...


@dataclass
class Counts:
    """Of the requests after the warming."""

    asked: int = 0
    served: int = 0
    reused: int = 0

    @property
    def acceptance(self) -> float:
        return self.served / self.asked

    @property
    def avoided(self) -> float:
        """The part of the served for which nothing was made and nothing removed."""
        return self.reused / max(1, self.served)


def trace(board: Geometry, mix: Mix, load: float, gpus: int, length: int, seed: str) -> list[Arrival]:
    """`load` is the memory slices asked for at any time, of those that there are."""
    random_ = random.Random(seed)
    wants, weights = list(mix), list(mix.values())
    meant = {want: fitting(board, ask_of(want))[0] for want in wants}
    mean = sum(meant[want].size * weight for want, weight in mix.items()) / sum(weights)
    rate = load * gpus * board.slices / mean
    found, now = [], 0.0
    for _ in range(length):
        now += random_.expovariate(rate)
        want = random_.choices(wants, weights)[0]
        found.append(Arrival(now, want, meant[want], now + random_.expovariate(1.0)))
    return found


def play(node: Node, arrivals: Sequence[Arrival]) -> Counts:
    """Every arrival in its turn, after the ends that were before it."""
    counts, running = Counts(), list[tuple[float, int, Place]]()
    warm = int(len(arrivals) * WARMING)
    for number, arrival in enumerate(arrivals):
        while running and running[0][0] <= arrival.at:
            end, _, place = heapq.heappop(running)
            node.release(place, end)
        found = node.take(arrival)
        if found is not None:
            heapq.heappush(running, (arrival.end, number, found))
        if number >= warm:
            counts.asked += 1
            counts.served += found is not None
            counts.reused += found is not None and found.reused
    return counts


@dataclass
class Planned:
    """The planner itself, asked as the daemon asks it. `took`: seconds of each plan."""

    gpus: Sequence[MigGpu]
    took: list[float] = field(default_factory=list)
    _instances: dict[tuple[int, int], Instance] = field(default_factory=dict)
    _mix: RecentMix = field(default_factory=RecentMix)
    _number: int = 0

    def take(self, arrival: Arrival) -> Place | None:
        self._mix = self._mix.after(ask_of(arrival.want))
        here = list(self._instances.values())
        began = time.perf_counter()
        found = plan(self.gpus, here, arrival.want, Policy(self._mix))
        self.took.append(time.perf_counter() - began)
        if not isinstance(found, Plan):
            return None
        gone = (*found.evict, found.reuse) if found.reuse else found.evict
        for each in gone:
            del self._instances[int(each.holder), each.mask]
        place = Place(
            found.gpu.index, ((1 << found.profile.size) - 1) << found.start, found.reuse is not None
        )
        self._keep(place, found.profile, None)
        return place

    def release(self, place: Place, now: float) -> None:
        profile = self._instances[place.gpu, place.mask].profile
        self._keep(place, self.gpus[place.gpu].board.by_id[profile], now)

    def _keep(self, place: Place, profile: Profile, idle_since: float | None) -> None:
        """`holder` is the GPU's index, for `take`."""
        self._number += 1
        uuid, start = self.gpus[place.gpu].uuid, first(place.mask)
        self._instances[place.gpu, place.mask] = Instance(
            uuid, self._number, profile.id, start, profile.size, True, idle_since, holder=str(place.gpu)
        )


Key = Callable[[int, int, int], tuple[int, ...]]
"""(slices taken of the GPU, its index, the placement) -> what is compared; smaller is better."""

KEYS: Final[Mapping[str, Key]] = {
    "first_fit": lambda taken, gpu, place: (gpu, place & -place),
    "best_fit": lambda taken, gpu, place: (-taken.bit_count(), gpu, place & -place),
    "spread": lambda taken, gpu, place: (taken.bit_count(), gpu, place & -place),
}


class Simple:
    """A way that compares by KEYS, with the planner's own order before it: an idle instance of the profile, then
    a place that needs no eviction, then the fewest evictions. With `keep` off nothing idle is kept."""

    def __init__(self, board: Geometry, gpus: int, key: Key, keep: bool = True) -> None:
        self._board, self._key, self._keep = board, key, keep
        self._taken = [0] * gpus
        self._idle: list[dict[int, int]] = [{} for _ in range(gpus)]
        self._used: dict[tuple[int, int], int] = {}

    def take(self, arrival: Arrival) -> Place | None:
        id = arrival.profile.id
        found = self._reused(id) or self._made(self._board.masks[id])
        if found is None:
            return None
        idle = self._idle[found.gpu]
        for mask in [mask for mask in idle if mask & found.mask]:
            del idle[mask]
        self._taken[found.gpu] |= found.mask
        self._used[found.gpu, found.mask] = id
        return found

    def release(self, place: Place, now: float) -> None:
        id = self._used.pop((place.gpu, place.mask))
        self._taken[place.gpu] &= ~place.mask
        if self._keep:
            self._idle[place.gpu][place.mask] = id

    def _reused(self, id: int) -> Place | None:
        ways = [
            (self._key(self._taken[gpu], gpu, mask), gpu, mask)
            for gpu, idle in enumerate(self._idle)
            for mask, other in idle.items()
            if other == id
        ]
        return Place(*min(ways)[1:], True) if ways else None

    def _made(self, masks: Sequence[int]) -> Place | None:
        ways = [
            (sum(1 for each in self._idle[gpu] if each & mask), self._key(taken, gpu, mask), gpu, mask)
            for gpu, taken in enumerate(self._taken)
            for mask in masks
            if not mask & taken
        ]
        return Place(*min(ways)[2:], False) if ways else None
