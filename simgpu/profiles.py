"""The MIG profiles of the boards that can be simulated, as mig_profiles.tsv has them.

Memory and names are those of one driver each; real ones change them. The simulated NVML reads these rows from the
state's text (state/mig.c).
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

TABLE: Final = Path(__file__).with_name("mig_profiles.tsv")
KINDS: Final = ("-", "me", "gfx", "all", "none")
"""In the order of `enum sim_kind`."""


@dataclass(frozen=True, slots=True)
class Profile:
    name: str
    index: int
    """NVML's number of it, the argument of nvmlDeviceGetGpuInstanceProfileInfo."""
    id: int
    compute: int
    """Compute slices."""
    slots: int
    """Of memory: the size of a placement."""
    mib: int
    sms: int
    engines: tuple[int, ...]
    """Copy, decoder, encoder, JPEG, optical flow."""
    most: int
    kind: str
    starts: tuple[int, ...]
    driver: int
    """The oldest that has it."""
    seen: bool
    """Memory and multiprocessors are published output of nvidia-smi or NVML, not inferred."""

    def text(self) -> str:
        """As the state file has it."""
        numbers = (
            self.index,
            self.id,
            self.compute,
            self.slots,
            self.mib,
            self.sms,
            *self.engines,
            self.most,
        )
        last = (KINDS.index(self.kind), self.driver, *self.starts)
        return " ".join([self.name, *map(str, (*numbers, *last))])


@functools.cache
def families() -> dict[str, tuple[Profile, ...]]:
    """The rows of each family of boards, by its name."""
    found: dict[str, list[Profile]] = {}
    for line in TABLE.read_text(encoding="ascii").splitlines():
        if not line.startswith("#"):
            family, *fields = line.split("\t")
            found.setdefault(family, []).append(_profile(fields))
    return {family: tuple(rows) for family, rows in found.items()}


def _profile(fields: list[str]) -> Profile:
    name, *numbers = fields[:12]
    index, identity, compute, slots, mib, sms, *engines = map(int, numbers)
    most, kind, starts, driver, basis = fields[12:]
    first = tuple(map(int, starts.split(",")))
    return Profile(
        name, index, identity, compute, slots, mib, sms, tuple(engines), int(most), kind, first, int(driver),
        basis == "seen",
    )  # fmt: skip


def settings(used: Iterable[str]) -> dict[str, object]:
    """The rows of those families, each once; `number` gives the families' numbers in the keys."""
    return {
        f"mig.{number(family)}.{row}": profile.text()
        for family in sorted(set(used) - {""})
        for row, profile in enumerate(families()[family])
    }


def number(family: str) -> int:
    return list(families()).index(family)
