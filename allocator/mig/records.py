"""The MIG instances that we made: what is written down of each, and what a look at the driver makes of it.

    MAKING --MADE--> READY --REMOVED--> REMOVING --GONE--> (no record)
       `--FAILED----------------------------------------------^

A record is written before the act that it is of, so a crash leaves MAKING with an instance, half of one or none, and
REMOVING with a whole one, half of one or none. `verdict` says what to do about it. An instance is ours only while the
driver shows it as it was written down: the GPU instance's id, profile and place, and the UUID of its MIG device, which
is another as soon as somebody makes it again. MAKING has neither id nor UUID yet: what lies at the place that was free
when it was written down, with that profile, is ours. Somebody else who makes the same at the same place, after we
looked and before the driver refuses us, and the daemon's death in that moment: then his would be taken for ours.

READY with a `token` is in use by that grant, without one it is idle. Of one that a process of the host had (`once`)
others may know the UUID, whoever that process started: it is handed over to nobody again, and removed as soon as nobody
is on it. Pure; knows nothing of NVML, files or clocks."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from gpuportion.allocator.mig.portion import UNMADE
from gpuportion.allocator.mig.seen import Seen


class Phase(str, Enum):
    MAKING = "making"
    READY = "ready"
    REMOVING = "removing"


class Change(str, Enum):
    MADE = "made"  # the driver made it, and shows it as it was asked for
    FAILED = "failed"  # it was not made, and nothing of it is there
    TAKEN = "taken"  # an idle one was given to a grant
    FREED = "freed"  # its grant is over: it is idle
    REMOVED = "removed"  # it is to be removed
    KEPT = "kept"  # it was to be removed, and is in use
    GONE = "gone"  # the driver does not show it any more


PHASES: Final = {
    # What has no phase after it has no record.
    (Phase.MAKING, Change.MADE): Phase.READY,
    (Phase.MAKING, Change.FREED): Phase.MAKING,
    (Phase.MAKING, Change.FAILED): None,
    (Phase.MAKING, Change.REMOVED): Phase.REMOVING,
    (Phase.READY, Change.TAKEN): Phase.READY,
    (Phase.READY, Change.FREED): Phase.READY,
    (Phase.READY, Change.REMOVED): Phase.REMOVING,
    (Phase.READY, Change.GONE): None,
    (Phase.REMOVING, Change.REMOVED): Phase.REMOVING,
    (Phase.REMOVING, Change.KEPT): Phase.READY,
    (Phase.REMOVING, Change.GONE): None,
}


@dataclass(frozen=True, slots=True)
class Record:
    """One instance of ours on the GPU of UUID `gpu`, made or to be made in the boot `boot`.

    `profile` is the profile's id, `name` what the driver calls it; `start`, `size` in memory slices, `memory` in bytes,
    `compute` in slices. `gi`, `ci`, `uuid` once they are known. `token`: of the grant that has it, "" if none.
    `idle_since`: seconds of CLOCK_BOOTTIME; of one in use, when that began or the like: it does not count. `once`: it
    is not to be handed over again."""

    key: int
    boot: str
    gpu: str
    profile: int
    name: str
    start: int
    size: int
    memory: int
    compute: int
    phase: Phase = Phase.MAKING
    gi: int = UNMADE
    ci: int = UNMADE
    uuid: str = ""
    token: str = ""
    idle_since: float = 0.0
    once: bool = False

    @property
    def is_idle(self) -> bool:
        return self.phase is Phase.READY and not self.token

    def lies_as(self, seen: Seen) -> bool:
        """Whether what the driver shows has its profile and its place."""
        return (self.profile, self.start, self.size) == (seen.profile, seen.start, seen.size)

    def is_same(self, seen: Seen) -> bool:
        """Whether `seen` is this very instance; of one that is being removed the compute instance may be gone, or may
        never have been told."""
        if self.gi == UNMADE:
            return self.lies_as(seen)
        if self.gi != seen.id or not self.lies_as(seen):
            return False
        ours = [one for one in seen.computes if (one.id, one.uuid) == (self.ci, self.uuid)]
        return bool(ours) or (self.phase is Phase.REMOVING and (not seen.computes or self.ci == UNMADE))


@dataclass(frozen=True, slots=True)
class Verdict:
    """What must become of a record. `seen`: the instance that it is of, where the driver shows it."""

    record: Record
    change: Change
    seen: Seen | None = None


def verdict(
    record: Record,
    boot: str,
    seen: Sequence[Seen] | None,
    live: Collection[str],
    others: Sequence[Record] = (),
) -> Verdict | None:
    """What to do about a record that nobody works on; None: it agrees.

    `seen`: all of its GPU's instances, None where they could not be read now. `live`: tokens of the grants that there
    are. `others`: records of the same GPU; an instance is of one alone."""
    if record.boot != boot:
        return Verdict(record, _end(record))
    if seen is None:
        return _unseen(record, live)
    taken = {other.gi for other in others} if record.gi == UNMADE else set()
    found = next((one for one in seen if one.id not in taken and record.is_same(one)), None)
    if found is None:
        return Verdict(record, _end(record))
    if record.phase is Phase.MAKING:
        return Verdict(record, Change.MADE if found.only else Change.REMOVED, found)
    if record.phase is Phase.REMOVING:
        return Verdict(record, Change.REMOVED, found)
    return _unseen(record, live)


def _unseen(record: Record, live: Collection[str]) -> Verdict | None:
    """What is known of it without the driver: whether its grant is over."""
    if record.token and record.token not in live:
        return Verdict(record, Change.FREED)
    return None


def _end(record: Record) -> Change:
    return Change.FAILED if record.phase is Phase.MAKING else Change.GONE


def reconcile(
    records: Sequence[Record], boot: str, seen: Mapping[str, Sequence[Seen]], live: Collection[str]
) -> list[Verdict]:
    """The verdicts of all records. `seen`: instances by the GPU's UUID; of a GPU that is not in it none is known."""
    found = []
    for record in records:
        others = [other for other in records if other.gpu == record.gpu]
        found.append(verdict(record, boot, seen.get(record.gpu), live, others))
    return [one for one in found if one is not None]
