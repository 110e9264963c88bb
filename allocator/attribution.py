"""Which process belongs to which grant, and what that leaves for others.

Processes of a container are known by its cgroup; those of `gpuportion exec` by the ledger that they map.
NVML's list is older than the look at /proc, so a process may have ended between the two: it then counts for
its grant if it was known, and for nobody if it was not. What NVML calls used but lists nobody for (drivers
before 510, other pid namespaces) counts as held without a grant once it has been there for `PATIENCE`
samples: a single sample mixes moments."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final

from gpuportion.allocator import cgroups, processes
from gpuportion.allocator.devices import MARGIN, ONCE, Gpu
from gpuportion.allocator.inventory import Reading, Sample
from gpuportion.allocator.processes import Process

PATIENCE: Final = 3


@dataclass(frozen=True, slots=True)
class Claim:
    """How the processes of one grant are known, and what it gives them. `holder` is its first process; `ledger` the
    device number of its ledger's own tmpfs, or 0; `limits` bytes by GPU UUID. `tolerated`: bytes by GPU UUID that it
    may go on holding above its limit, because that was lowered below what it held."""

    token: str
    cgroups: tuple[str, ...] = ()
    holder: Process | None = None
    ledger: int = 0
    limits: Mapping[str, int] = field(default_factory=dict)
    tolerated: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Held:
    """One process's memory on one GPU: by a grant (`token`), by nobody ("") or by one that has ended
    (None). `start` tells the process from a later one with its pid; 0: it has ended."""

    pid: int
    size: int
    token: str | None
    start: int = 0


class Attribution:
    """Remembers whose a process was, for as long as that grant lives."""

    def __init__(self, margin: int = MARGIN, overcommit: Decimal = ONCE) -> None:
        self.margin = margin
        self.overcommit = overcommit
        self._known: dict[int, tuple[int, str]] = {}
        self._unlisted: dict[str, deque[int]] = {}
        self.held: dict[str, tuple[Held, ...]] = {}
        """By GPU UUID, as of the last sample."""

    def update(self, sample: Sample, claims: Iterable[Claim]) -> tuple[Gpu, ...]:
        """The sample as GPUs, with what is held without a grant taken off."""
        claims = list(claims)
        live = {claim.token for claim in claims}
        self._known = {pid: known for pid, known in self._known.items() if known[1] in live}
        pids = {pid for reading in sample.readings for pid in reading.processes}
        owners = {pid: self._owner(pid, claims, sample.taken) for pid in pids}
        self.held = {
            reading.uuid: tuple(
                Held(pid, size, owners[pid][1], owners[pid][0]) for pid, size in reading.processes.items()
            )
            for reading in sample.readings
        }
        return tuple(self._gpu(reading, claims) for reading in sample.readings)

    def _owner(self, pid: int, claims: Iterable[Claim], taken: float) -> tuple[int, str | None]:
        """(start, token) of a process that NVML listed at `taken`. One that is younger has only its pid."""
        start = processes.start_of(pid)
        known = self._known.get(pid)
        if known is not None and start in (known[0], None):
            return known
        if start is None or not processes.began_before(start, taken):
            return 0, None
        token = find_owner(Process(pid, start), claims, cgroups.membership, processes.maps_device)
        if token:
            self._known[pid] = (start, token)
        return start, token

    def _gpu(self, reading: Reading, claims: Iterable[Claim]) -> Gpu:
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
            unmanaged=sum(one.size for one in held if one.token == "")
            + _beyond(reading.uuid, held, claims)
            + unlisted,
            unaccounted=unlisted,
            margin=self.margin,
            trouble=reading.trouble,
            overcommit=self.overcommit,
            links=reading.links,
        )


def _beyond(uuid: str, held: Iterable[Held], claims: Iterable[Claim]) -> int:
    """Bytes that grants' processes hold beyond their grants: nobody else can have them, whoever let them."""
    limits = {claim.token: claim.limits.get(uuid, 0) for claim in claims}
    sums: Counter[str] = Counter()
    for one in held:
        if one.token in limits:
            sums[one.token] += one.size
    return sum(max(0, size - limits[token]) for token, size in sums.items())


def find_owner(
    process: Process,
    claims: Iterable[Claim],
    membership: Callable[[int], dict[str, str]],
    maps_device: Callable[[int, int], bool],
) -> str:
    """The token of the grant that `process` belongs to; "" if it has none."""
    places = membership(process.pid)
    for claim in claims:
        if claim.holder == process or (claim.cgroups and cgroups.belongs(places, claim.cgroups)):
            return claim.token
    for claim in claims:
        if claim.ledger and maps_device(process.pid, claim.ledger):
            return claim.token
    return ""
