"""What is done to one GPU's MIG instances, step by step; runs in that GPU's own thread and may take seconds.

    make      victims go first, then the GPU instance at its place, its compute instance, and a look whether the driver
              shows what was asked for; what fails is undone
    remove    the compute instance, then the GPU instance; again and again for a while where the driver says "in use",
              as it does for a second after the last client has gone; what is gone already is gone
    check     whether an idle instance is still the same, with nobody on it

Each gives an Outcome and never raises for what the driver does. Nothing is written down here: the intent was before,
the result is after, by whoever asked."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from gpuportion.allocator.fault_points import here
from gpuportion.allocator.mig.portion import UNMADE
from gpuportion.allocator.mig.records import Phase, Record
from gpuportion.allocator.mig.seen import MigReading, Seen
from gpuportion.allocator.nvml.mig import BUSY, FULL, MigError, Migs, NamelessError

log: Final = logging.getLogger("gpuportiond")

LEAST: Final = 15 / 16
"""Of the memory of its profile that an instance must have. What it has counts, not what the profile says; less than
this is a slice less."""

PAUSES: Final = (0.05, 0.1, 0.2, 0.4, 0.8, 1.0)
"""Seconds between two tries to destroy what the driver says is in use."""


class MismatchError(Exception):
    """The driver did something else than it was asked for."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an act.

    `made`: the instance, whole, as the driver shows it; `memory`: bytes that it has. `is_full`: the driver has no room
    at that place after all. `left`: the id of a GPU instance that was made and could not be undone, UNMADE if it is not
    known. `removed`, `kept`:
    keys of records, with why. `trouble`: why it failed. `reading`: the GPU after it, None if it could not be read."""

    made: Seen | None = None
    memory: int = 0
    is_full: bool = False
    left: int | None = None
    removed: tuple[int, ...] = ()
    kept: tuple[tuple[int, str], ...] = ()
    trouble: str = ""
    reading: MigReading | None = None


def make(migs: Migs, record: Record, victims: Sequence[Record], is_wanted: Callable[[], bool]) -> Outcome:
    """The instance of `record`, in the room of `victims`, unless nobody waits for it any more."""
    if not is_wanted():
        return _read(migs, record.gpu, Outcome(trouble="nobody waits for it any more"))
    cleared = _cleared(migs, victims)
    if cleared.kept:
        why = f"an idle instance could not be removed: {cleared.kept[0][1]}"
        return _read(migs, record.gpu, dataclasses.replace(cleared, is_full=True, trouble=why))
    made = _made(migs, record)
    return _read(migs, record.gpu, dataclasses.replace(made, removed=cleared.removed))


def remove(migs: Migs, records: Sequence[Record]) -> Outcome:
    """As many of these instances of one GPU as can go."""
    return _read(migs, records[0].gpu, _cleared(migs, records))


def check(migs: Migs, record: Record) -> Outcome:
    """`made`, if the instance of `record` can be handed over as it is."""
    try:
        seen = migs.instance(record.gpu, record.gi)
    except MigError as problem:
        return _read(migs, record.gpu, Outcome(trouble=str(problem)))
    if seen is None or not record.is_same(seen):
        return _read(migs, record.gpu, Outcome(trouble="it is not there any more"))
    if seen.pids:
        return _read(migs, record.gpu, Outcome(made=seen, trouble=_used(seen)))
    return _read(migs, record.gpu, Outcome(made=seen))


def _made(migs: Migs, record: Record) -> Outcome:
    """`made`, or what the driver refused; then nothing is left of it but `left`."""
    here("mig-making")
    try:
        gi = migs.create_gi(record.gpu, record.profile, record.start, record.size)
    except NamelessError as problem:
        return Outcome(trouble=f"{problem}; and it could not be undone", left=UNMADE)
    except MigError as problem:
        return Outcome(is_full=problem.kind == FULL, trouble=str(problem))
    here("mig-gpu-instance-made")
    try:
        ci = migs.create_ci(record.gpu, gi, record.compute)
        here("mig-compute-instance-made")
        return _verified(migs, record, gi, ci)
    except (MigError, MismatchError) as problem:
        here("mig-rolling-back")
        why = _destroyed(migs, record.gpu, gi)
        left = gi if why else None
        return Outcome(trouble=f"{problem}{'; and it could not be undone: ' if why else ''}{why}", left=left)


def _verified(migs: Migs, record: Record, gi: int, ci: int) -> Outcome:
    """What the driver shows must be what was asked for: place, compute instance and memory; or MismatchError."""
    seen = migs.instance(record.gpu, gi)
    only = seen.only if seen else None
    if seen is None or only is None or only.id != ci or not record.lies_as(seen):
        raise MismatchError(f"it made {seen or 'nothing'} instead of {record.name} at {record.start}")
    memory = migs.memory(only.uuid)
    if memory < record.memory * LEAST:
        raise MismatchError(f"the instance has {memory >> 20} MiB, not {record.memory >> 20}")
    here("mig-verified")
    return Outcome(made=seen, memory=memory)


def _removed(migs: Migs, record: Record) -> str:
    """ "" once the instance of `record` is gone, or else why it is not. What is not ours is not touched."""
    try:
        seen = _find(migs, record)
    except MigError as problem:
        return str(problem)
    if seen is None:
        return ""
    if seen.pids:
        return _used(seen)
    return _destroyed(migs, record.gpu, seen.id)


def _cleared(migs: Migs, records: Sequence[Record]) -> Outcome:
    whys = {record.key: _removed(migs, record) for record in records}
    return Outcome(
        removed=tuple(key for key, why in whys.items() if not why),
        kept=tuple((key, why) for key, why in whys.items() if why),
    )


def _find(migs: Migs, record: Record) -> Seen | None:
    removing = dataclasses.replace(record, phase=Phase.REMOVING)
    if record.gi >= 0:
        seen = migs.instance(record.gpu, record.gi)
        return seen if seen is not None and removing.is_same(seen) else None
    reading = migs.read(record.gpu)
    return next((one for one in reading.instances if record.lies_as(one)), None) if reading else None


def _destroyed(migs: Migs, gpu: str, gi: int) -> str:
    """Both halves of a GPU instance, whichever are there; "" once they are gone, or else why not."""
    for pause in (*PAUSES, None):
        try:
            _destroy(migs, gpu, gi)
            return ""
        except MigError as problem:
            if problem.kind != BUSY or pause is None:
                return str(problem)
        time.sleep(pause)
    return ""


def _destroy(migs: Migs, gpu: str, gi: int) -> None:
    seen = migs.instance(gpu, gi)
    if seen is None:
        return
    here("mig-removing")
    for compute in seen.computes:
        migs.destroy_ci(gpu, gi, compute.id)
    here("mig-compute-instance-removed")
    migs.destroy_gi(gpu, gi)
    here("mig-gpu-instance-removed")


def _used(seen: Seen) -> str:
    return f"processes use it: pid {', '.join(str(pid) for pid in seen.pids[:8])}"


def _read(migs: Migs, gpu: str, done: Outcome) -> Outcome:
    try:
        return dataclasses.replace(done, reading=migs.read(gpu))
    except MigError as problem:
        log.warning("MIG instances of %s could not be read: %s", gpu, problem)
        return done
