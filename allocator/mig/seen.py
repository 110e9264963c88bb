"""What the driver shows of MIG on one GPU at one moment. Values only."""

from __future__ import annotations

from dataclasses import dataclass

from gpuportion.allocator.mig.profiles import Profile


@dataclass(frozen=True, slots=True)
class Compute:
    """A compute instance: its id, the UUID of its MIG device, who runs on it, and the bytes in use there."""

    id: int
    uuid: str
    pids: tuple[int, ...] = ()
    used: int = 0


@dataclass(frozen=True, slots=True)
class Seen:
    """A GPU instance with its compute instances. `start` and `size` in memory slices, `profile` is its id."""

    id: int
    profile: int
    start: int
    size: int
    computes: tuple[Compute, ...] = ()

    @property
    def only(self) -> Compute | None:
        """Its one compute instance, which those that we make have."""
        return self.computes[0] if len(self.computes) == 1 else None

    @property
    def pids(self) -> tuple[int, ...]:
        return tuple(pid for compute in self.computes for pid in compute.pids)


@dataclass(frozen=True, slots=True)
class MigReading:
    """MIG on one GPU that can have it. `mode`: whether it is on; `pending`: whether it is after the next reset.

    `at`: when the reading began, seconds of CLOCK_MONOTONIC: what changed after that it may not show. `trouble`: why
    profiles and instances could not be read, "" if they could."""

    mode: bool
    pending: bool
    at: float
    profiles: tuple[Profile, ...] = ()
    instances: tuple[Seen, ...] = ()
    trouble: str = ""
