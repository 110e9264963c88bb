"""The MIG instance that a grant has: what its share carries, the store keeps and a container is given.

A value; how it was made is for `partitions.py`, how a container gets it for the injection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

UNMADE: Final = -1


@dataclass(frozen=True, slots=True)
class MigPortion:
    """A GPU instance of the GPU `gpu` (its UUID, NVML index and minor number) with its one compute instance.

    `gi`, `ci`: NVML's ids. `uuid`: `MIG-...`, of this instance alone: one that is made again has another. `profile`:
    the driver's name; `memory` in bytes, as NVML says of the instance; `compute` in compute slices, of
    `compute_total` that the GPU has. While it is being made, `gi` and `ci` are UNMADE, and `uuid` is ""."""

    gpu: str
    index: int
    minor: int
    gi: int
    ci: int
    uuid: str
    profile: str
    memory: int
    compute: int
    compute_total: int

    @property
    def is_made(self) -> bool:
        """Only then a container can be given it."""
        return self.gi != UNMADE
