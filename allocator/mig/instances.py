"""GPUs that are cut by MIG, the instances on them, and what one more would cost there.

Values and arithmetic of one GPU; which GPU is best, and what was asked, is decided elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from gpuportion.allocator.mig.geometry import Geometry, mask
from gpuportion.allocator.mig.profiles import Profile


@dataclass(frozen=True, slots=True)
class MigGpu:
    """A GPU with MIG on, as it was last read. `trouble`: why it can serve nobody now, "" if it can."""

    index: int
    uuid: str
    model: str
    board: Geometry
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Instance:
    """A GPU instance on the GPU of UUID `gpu`: NVML's `id`, its profile's id and where it lies.

    `ours`: made by us; only such are reused or removed. `idle_since`: seconds of any clock that all share, None
    while a container has it. `whole`: False where its compute instance is missing or half torn down: it can be
    removed, not handed over. `holder` is for messages."""

    gpu: str
    id: int
    profile: int
    start: int
    size: int
    ours: bool = False
    idle_since: float | None = None
    whole: bool = True
    holder: str = ""

    @property
    def mask(self) -> int:
        return mask(self.start, self.size)

    @property
    def evictable(self) -> bool:
        return self.ours and self.idle_since is not None


class Occupancy:
    """One GPU with its instances. `taken` are the slices that cannot be had: in use, or of others. `idle` can be
    evicted, the longest idle first; their slices are room."""

    __slots__ = ("gpu", "idle", "idle_mask", "instances", "taken")

    def __init__(self, gpu: MigGpu, instances: Sequence[Instance]) -> None:
        self.gpu = gpu
        self.instances = instances
        self.taken = self.idle_mask = 0
        idle: list[tuple[float, int, Instance]] = []
        for each in instances:
            if each.ours and each.idle_since is not None:
                idle.append((each.idle_since, each.id, each))
                self.idle_mask |= mask(each.start, each.size)
            else:
                self.taken |= mask(each.start, each.size)
        self.idle = tuple(each for _, _, each in sorted(idle, key=lambda entry: entry[:2]))

    @property
    def free(self) -> int:
        """Memory slices that can be had, if need be by evicting."""
        return self.gpu.board.slices - self.taken.bit_count()

    def legal(self, profile: Profile, gone: Sequence[Instance] = ()) -> bool:
        """Whether the driver's counts allow one more of `profile` once `gone` are gone; slices apart."""
        board, removed = self.gpu.board, {each.id for each in gone}
        left = [each for each in self.instances if each.id not in removed]
        if sum(each.profile == profile.id for each in left) >= profile.most:
            return False
        used = [board.engines(each.profile) for each in left]
        return all(
            need + sum(counts[k] for counts in used) <= board.media[k]
            for k, need in enumerate(profile.engines.counts())
            if need
        )

    def victims(self, profile: Profile, place: int) -> tuple[Instance, ...] | None:
        """The fewest idle instances that must go for `profile` at the slices `place`, the longest idle where
        there is a choice; None: it cannot be had."""
        if place & self.taken:
            return None
        under = tuple(each for each in self.idle if each.mask & place)
        rest = tuple(each for each in self.idle if not each.mask & place)
        for count in range(len(rest) + 1):
            for more in combinations(rest, count):
                if self.legal(profile, under + more):
                    return under + more
        return None
