"""One GPU as NVML tells of it: everything at first, and then again only what may have changed.

Every call costs the driver something, and the daemon reads sixteen GPUs each second for as long as the machine runs.
So while memory and the list of compute processes say the same as before, the other lists, which would show in the
memory, are not asked for; names, links and the driver's advice come with the next whole reading. Knows nothing of
grants, nor when a whole one is due.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pynvml

from gpuportion.allocator.mig.seen import MigReading
from gpuportion.allocator.nvml.mig import MigError, Migs
from gpuportion.allocator.nvml.process_lists import ProcessList
from gpuportion.allocator.nvml.session import tried


@dataclass(frozen=True, slots=True)
class Reading:
    """One GPU as NVML sees it. Amounts in bytes; `processes` has what each pid holds, as far as NVML knows.

    `used` is without `reserved`. Of the readings before and after the process list it is the smaller one,
    so that memory taken between the two is not blamed on nobody."""

    index: int
    uuid: str
    model: str
    minor: int
    total: int
    reserved: int = 0
    used: int = 0
    processes: Mapping[int, int] = field(default_factory=dict)
    trouble: str = ""
    links: Mapping[str, int] = field(default_factory=dict)
    """How well it is linked to the other GPUs, by their UUID: the ranks of links.py."""
    mig: MigReading | None = None
    """Modes, profiles and instances; None where board or driver have no MIG."""
    action: int | None = None
    """What the driver says must be done about it, as health.ACTIONS has it; 0: nothing, None: it does not tell."""
    answers: bool = True
    """Whether these are its own words, and not those of an earlier sample."""


class OneGpu:
    """A GPU by its index, for as long as a session lasts. NVMLError as it comes."""

    def __init__(self, index: int, migs: Migs) -> None:
        self._index, self._migs = index, migs
        self._device = pynvml.nvmlDeviceGetHandleByIndex(index)
        self._computing = ProcessList("Compute", self._device)
        self._others = [ProcessList(kind, self._device) for kind in ("Graphics", "MPSCompute")]
        self._memory = (0, 0, 0)
        self._compute: Mapping[int, int] = {}

    def whole(self) -> Reading:
        """All that there is to know of it, but its links."""
        device = self._device
        memory, used, processes = self._use(*self._first())
        uuid = str(pynvml.nvmlDeviceGetUUID(device))
        return Reading(
            index=self._index,
            uuid=uuid,
            model=str(pynvml.nvmlDeviceGetName(device)),
            minor=int(tried(pynvml.nvmlDeviceGetMinorNumber, device, default=self._index)),
            total=memory[0],
            reserved=memory[1],
            used=used,
            processes=processes,
            mig=self._read_mig(uuid),
            action=_action(device),
        )

    def again(self, last: Reading, *, advice: bool) -> Reading:
        """As `last`, which was read of it before, with what is new; `advice`: also what the driver says of it, and
        whether somebody has switched MIG on."""
        memory, compute = self._first()
        used, processes = memory[2], last.processes
        if (memory, compute) != (self._memory, self._compute):
            memory, used, processes = self._use(memory, compute)
        mig = self._mig_again(last, advice)
        action = _action(self._device) if advice or last.action else last.action
        now = (memory[0], memory[1], used, processes, mig, action)
        if now == (last.total, last.reserved, last.used, last.processes, last.mig, last.action):
            return last
        names = ("total", "reserved", "used", "processes", "mig", "action")
        return dataclasses.replace(last, **dict(zip(names, now, strict=True)))  # type: ignore[arg-type]

    def _first(self) -> tuple[tuple[int, int, int], Mapping[int, int]]:
        """What tells whether anything has changed."""
        return _memory(self._device), self._computing.read()

    def _use(
        self, before: tuple[int, int, int], compute: Mapping[int, int]
    ) -> tuple[tuple[int, int, int], int, dict[int, int]]:
        """Memory, bytes used of it, and bytes by pid. A process can be in several lists, each with all that it has."""
        processes = dict(compute)
        for other in self._others:
            for pid, size in other.read().items():
                processes[pid] = max(processes.get(pid, 0), size)
        after = _memory(self._device)
        self._memory, self._compute = after, compute
        return after, min(before[2], after[2]), processes

    # MIG

    def _mig_again(self, last: Reading, due: bool) -> MigReading | None:
        """Instances come and go; where the mode is off there are none, and others switch it on now and then at most."""
        mig = last.mig
        if mig is not None and (mig.mode or mig.pending or mig.trouble or due):
            return self._read_mig(last.uuid)
        return mig

    def _read_mig(self, uuid: str) -> MigReading | None:
        try:
            return self._migs.read(uuid)
        except MigError:
            return None


def _action(device: Any) -> int | None:
    """What the driver says must be done about a GPU; None: it has no words for that (before 565)."""
    found = tried(pynvml.nvmlDeviceGetFieldValues, device, [pynvml.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION])
    if not found or found[0].nvmlReturn != pynvml.NVML_SUCCESS:
        return None
    return int(found[0].value.uiVal)


def _memory(device: Any) -> tuple[int, int, int]:
    """(total, reserved, used without reserved) in bytes. Drivers below 510 count `reserved` as used."""
    try:
        memory = pynvml.nvmlDeviceGetMemoryInfo(device, version=pynvml.nvmlMemory_v2)
        return int(memory.total), int(memory.reserved), int(memory.used)
    except (pynvml.NVMLError_FunctionNotFound, pynvml.NVMLError_NotSupported):
        memory = pynvml.nvmlDeviceGetMemoryInfo(device)
        return int(memory.total), 0, int(memory.used)
