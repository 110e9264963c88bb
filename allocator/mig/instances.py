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
    while a container has it. `whole`: False where its compute instance is missing or half torn down, or others may
    know its UUID: it can be removed, not handed over. `holder` is for messages."""

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

    __slots__ = ("_media", "gpu", "idle", "idle_mask", "instances", "taken")

    def __init__(self, gpu: MigGpu, instances: Sequence[Instance]) -> None:
        self.gpu = gpu
        self.instances = instances
        self.taken = self.idle_mask = 0
        self.idle: list[Instance] = []
        self._media: list[int] | None = None
        for each in instances:
            place = ((1 << each.size) - 1) << each.start
            if each.ours and each.idle_since is not None:
                self.idle.append(each)
                self.idle_mask |= place
            else:
                self.taken |= place
        if len(self.idle) > 1:
            self.idle.sort(key=lambda each: (each.idle_since, each.id))

    @property
    def free(self) -> int:
        """Memory slices that can be had, if need be by evicting."""
        return self.gpu.board.slices - self.taken.bit_count()

    def legal(self, profile: Profile, gone: Sequence[Instance] = ()) -> bool:
        """Whether the driver's counts allow one more of `profile` once `gone` are gone; slices apart."""
        alike = sum(each.profile == profile.id for each in self.instances)
        if alike - sum(each.profile == profile.id for each in gone) >= profile.most:
            return False
        board, used = self.gpu.board, self._used()
        return all(
            need + used[k] - sum(board.engines(each.profile)[k] for each in gone) <= board.media[k]
            for k, need in enumerate(profile.engines.counts())
            if need
        )

    def _used(self) -> list[int]:
        """Media engines of all instances, added up once."""
        if self._media is None:
            counts = [self.gpu.board.engines(each.profile) for each in self.instances]
            self._media = [sum(column) for column in zip(*counts, strict=True)] or [0, 0, 0, 0]
        return self._media

    def victims(self, profile: Profile, place: int) -> tuple[Instance, ...] | None:
        """The fewest idle instances that must go for `profile` at the slices `place`, the longest idle where
        there is a choice; None: it cannot be had."""
        if place & self.taken:
            return None
        under = tuple(each for each in self.idle if each.mask & place)
        if self.legal(profile, under):
            return under
        rest = tuple(each for each in self.idle if not each.mask & place)
        if not self.legal(profile, self.idle):
            return None
        for count in range(1, len(rest) + 1):
            for more in combinations(rest, count):
                if self.legal(profile, under + more):
                    return under + more
        return None
