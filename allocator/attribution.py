"""What the processes of grants hold, and what that leaves for others.

Whose a process is, `owners` says. NVML's list is older than the look at /proc, so a process may have ended between
the two: it then counts for its grant if it was known, and for nobody if it was not. What NVML calls used but lists
nobody for (drivers before 510, other pid namespaces) counts as held without a grant once it has been there for
`PATIENCE` samples: a single sample mixes moments."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from gpuportion.allocator.devices import MARGIN, ONCE, Gpu
from gpuportion.allocator.inventory import Reading, Sample
from gpuportion.allocator.owners import UNDECIDED, Claim, Owners

PATIENCE: Final = 3


@dataclass(frozen=True, slots=True)
class Held:
    """One process's memory on one GPU: by a grant (`token`), by nobody (""), by who is yet to be looked at
    (owners.UNDECIDED) or by one that has ended (None). `start` tells the process from a later one with its pid; 0: it
    has ended."""

    pid: int
    size: int
    token: str | None
    start: int = 0


class Attribution:
    """Remembers whose a process was (owners.py), and for how long memory was nobody's."""

    def __init__(self, margin: int = MARGIN, overcommit: Decimal = ONCE) -> None:
        self.margin = margin
        self.overcommit = overcommit
        self._owners = Owners()
        self._unlisted: dict[str, deque[int]] = {}
        self.held: dict[str, tuple[Held, ...]] = {}
        """By GPU UUID, as of the last sample."""

    def update(self, sample: Sample, claims: Iterable[Claim]) -> tuple[Gpu, ...]:
        """The sample as GPUs, with what is held without a grant taken off."""
        claims = tuple(claims)
        pids = {pid for reading in sample.readings for pid in reading.processes}
        owners = self._owners.of(pids, claims, sample.taken)
        self.held = {
            reading.uuid: tuple(
                Held(pid, size, owners[pid][1], owners[pid][0]) for pid, size in reading.processes.items()
            )
            for reading in sample.readings
        }
        limits = {claim.token: claim.limits for claim in claims}
        return tuple(self._gpu(reading, limits) for reading in sample.readings)

    def has_lost(self) -> bool:
        """Has one of the processes ended since it was last asked?"""
        return self._owners.has_lost()

    @property
    def is_undecided(self) -> bool:
        """Must somebody wait to be looked at?"""
        return any(one.token == UNDECIDED for held in self.held.values() for one in held)

    def _gpu(self, reading: Reading, limits: Mapping[str, Mapping[str, int]]) -> Gpu:
        held = self.held[reading.uuid]
        seen = self._unlisted.setdefault(reading.uuid, deque(maxlen=PATIENCE))
        seen.append(max(0, reading.used - sum(one.size for one in held)))
        unlisted = min(seen) if len(seen) == PATIENCE else 0
        return Gpu(
            index=reading.index,
            uuid=reading.uuid,
            model=reading.model,
            minor=reading.minor,
            total=reading.total,
            reserved=reading.reserved,
            used=reading.used,
            unmanaged=sum(one.size for one in held if one.token in ("", UNDECIDED))
            + _beyond(reading.uuid, held, limits)
            + unlisted,
            unaccounted=unlisted,
            margin=self.margin,
            trouble=reading.trouble,
            overcommit=self.overcommit,
            links=reading.links,
        )


def _beyond(uuid: str, held: Iterable[Held], limits: Mapping[str, Mapping[str, int]]) -> int:
    """Bytes that grants' processes hold beyond their grants: nobody else can have them, whoever let them. `limits`: by
    token and GPU UUID."""
    sums: Counter[str] = Counter()
    for one in held:
        if one.token is not None and one.token in limits:
            sums[one.token] += one.size
    return sum(max(0, size - limits[token].get(uuid, 0)) for token, size in sums.items())
