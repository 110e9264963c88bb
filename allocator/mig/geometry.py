"""What fits where on one board: memory slices as bits of an int, and tables made once for each board.

Knows profiles and arithmetic; nothing of instances, idleness, requests or the rest of the node. A Geometry is
compared by identity: whoever reads the GPUs keeps one for each list of profiles (`geometry_of`)."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from gpuportion.allocator.mig.profiles import Profile

Masks = tuple[int, ...]


def mask(start: int, size: int) -> int:
    """`size` slices from `start` on."""
    return ((1 << size) - 1) << start


def first(place: int) -> int:
    """Where a mask starts."""
    return (place & -place).bit_length() - 1


class Geometry:
    """A board's profiles with their masks.

    `shapes` are the distinct sets of masks: profiles that may stand in the same places (1g.5gb and 1g.5gb+me)
    need the same room and are one shape to the fragmentation score. `media` is how many of each media engine
    the board has: at least what its largest user takes, and what as many of a profile as may live at once
    take together. From it follows what else NVIDIA states as rules: one `+me`, and `+me.all` only beside `-me`."""

    def __init__(self, profiles: Iterable[Profile]) -> None:
        self.profiles = tuple(sorted(profiles, key=lambda profile: profile.rank))
        self.by_id = {profile.id: profile for profile in self.profiles}
        self.masks: dict[int, Masks] = {
            profile.id: tuple(mask(start, profile.size) for start in sorted(profile.starts))
            for profile in self.profiles
        }
        self.slices = max((each.bit_length() for masks in self.masks.values() for each in masks), default=0)
        self.compute = max((profile.compute for profile in self.profiles), default=0)
        self.media = tuple(
            max((profile.engines.counts()[k] * max(1, profile.most) for profile in self.profiles), default=0)
            for k in range(4)
        )
        self._engines = {profile.id: profile.engines.counts() for profile in self.profiles}
        self.shapes: tuple[Masks, ...] = tuple(dict.fromkeys(self.masks.values()))
        self.sizes = tuple(masks[0].bit_count() if masks else 0 for masks in self.shapes)
        self.shape_of = {id: self.shapes.index(masks) for id, masks in self.masks.items()}
        self._room: dict[int, Masks] = {}

    def engines(self, id: int) -> tuple[int, int, int, int]:
        """Media engines that an instance of this profile takes; none where nobody knows the profile."""
        return self._engines.get(id, (0, 0, 0, 0))

    def room(self, taken: int) -> Masks:
        """For each shape, how many more of it fit beside `taken`."""
        found = self._room.get(taken)
        if found is None:
            found = self._room[taken] = tuple(_packed(masks, taken) for masks in self.shapes)
        return found

    def has_room(self, profile: Profile, taken: int) -> bool:
        """Whether one more of `profile` fits beside `taken`."""
        return self.room(taken)[self.shape_of[profile.id]] > 0


def _packed(masks: Masks, taken: int) -> int:
    """The most disjoint masks: of equal intervals, taking each that is free from the left is exact."""
    count = 0
    for each in masks:
        if not taken & each:
            taken |= each
            count += 1
    return count


@lru_cache(maxsize=64)
def geometry_of(profiles: tuple[Profile, ...]) -> Geometry:
    """The one Geometry of these profiles. GPUs of one model share it, and with it its tables."""
    return Geometry(profiles)
