"""MIG profiles as the driver offers them, and the names that people give them.

Values only: whoever reads NVML fills them in. There is no table of boards here: sizes, placements and names
change with board and driver, and the driver is right."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

NAME: Final = re.compile(r"(\d{1,2})g\.(\d{1,4})gb([+-][a-z.]+)?")
ROUNDING: Final = 0.03
"""Two ways of rounding one size, of the driver and of NVIDIA's tools, differ by less: 7g.79gb is 7g.80gb. The
nearest names of different profiles of one kind are a factor of two apart."""


@dataclass(frozen=True, slots=True)
class Engines:
    """Media engines that an instance has to itself: NVDEC, NVENC, NVJPG, OFA."""

    decoders: int = 0
    encoders: int = 0
    jpeg: int = 0
    flow: int = 0

    def counts(self) -> tuple[int, int, int, int]:
        return (self.decoders, self.encoders, self.jpeg, self.flow)


@dataclass(frozen=True, slots=True)
class Profile:
    """One row of NVML's GPU instance profiles.

    `id` is `info.id` (what create and the placements take), not the index by which the row was asked for.
    `names`: the driver's first, then others by which tools know it. `memory` in MiB as NVML says, `compute` in
    slices, `size` in memory slices, `starts` where it may begin, `most` how many of it may live at once."""

    id: int
    names: tuple[str, ...]
    memory: int
    compute: int
    size: int
    starts: tuple[int, ...]
    most: int
    engines: Engines = Engines()

    @property
    def name(self) -> str:
        return self.names[0]

    @property
    def variant(self) -> str:
        """`+me`, `+gfx`, `-me`, `+me.all`, or "" for an ordinary profile, which alone serves amounts."""
        match = NAME.fullmatch(self.name.lower())
        return (match[3] or "") if match else self.name

    @property
    def rank(self) -> tuple[int, int, int]:
        """Smaller first: memory slices, compute slices; the id so that the order is one."""
        return (self.size, self.compute, self.id)

    def is_called(self, name: str) -> bool:
        """Whether `name` is exactly one of its names."""
        return name.lower() in (each.lower() for each in self.names)

    def is_nearly_called(self, name: str) -> bool:
        """Whether `name` is one of its names but for the rounding of the gigabytes."""
        asked = NAME.fullmatch(name.lower())
        return asked is not None and any(_alike(asked, each) for each in self.names)


def _alike(asked: re.Match[str], name: str) -> bool:
    own = NAME.fullmatch(name.lower())
    if own is None or (asked[1], asked[3]) != (own[1], own[3]):
        return False
    one, other = int(asked[2]), int(own[2])
    return abs(one - other) <= ROUNDING * max(one, other)
