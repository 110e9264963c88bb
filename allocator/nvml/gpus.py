"""What NVML tells of this machine's GPUs.

The session is opened once and kept: opening it takes long on big machines, and without a client the driver
may be unloaded. Whatever NVML refuses becomes a sentence in the sample; the daemon lives on and tries
again. Pids are of the host. Knows nothing of grants: which process has one is for `attribution.py`."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import pynvml

from gpuportion.allocator.mig.seen import MigReading
from gpuportion.allocator.nvml.mig import MigError, Migs
from gpuportion.allocator.nvml.nvlinks import ranks_of
from gpuportion.allocator.nvml.session import connect, disconnect, sentence, tried
from gpuportion.allocator.nvml.xid_events import XidEvents

OLDEST_DRIVER: Final = 470

NO_SESSION: Final = (pynvml.NVML_ERROR_UNINITIALIZED, pynvml.NVML_ERROR_DRIVER_NOT_LOADED)
"""Errors that are not one GPU's."""


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


@dataclass(frozen=True, slots=True)
class Sample:
    """All GPUs at one moment. `trouble` says why there are none. `taken`: when the reading began, seconds of
    CLOCK_BOOTTIME; a process that is younger is not the one that a pid in it stood for."""

    readings: tuple[Reading, ...] = ()
    driver: str = ""
    trouble: str = ""
    taken: float = float("inf")
    xids: tuple[tuple[str, int], ...] = ()
    """(UUID, XID) of the events since the last sample."""


class Nvml:
    """The session with NVML, one for each daemon."""

    def __init__(self) -> None:
        self._open = False
        self._driver = ""
        self._last: tuple[Reading, ...] = ()
        self._links: tuple[tuple[str, ...], dict[str, dict[str, int]]] = ((), {})
        self._migs = Migs()
        self._xids = XidEvents()

    def sample(self) -> Sample:
        """Read everything; never raises for what NVML or the driver does."""
        taken = time.clock_gettime(time.CLOCK_BOOTTIME)
        try:
            self._connect()
            count = pynvml.nvmlDeviceGetCount()
            readings = self._linked(tuple(self._read(index) for index in range(count)))
            xids = self._xids.read([reading.uuid for reading in readings if reading.answers])
        except (pynvml.NVMLError, OSError) as problem:
            self.close()
            return Sample(trouble=sentence(problem))
        if readings and not any(reading.answers for reading in readings):
            self.close()  # it may be the session that is ill, and not every GPU
        readings += self._missing(readings)
        self._last = readings
        trouble = "" if readings else "NVML finds no NVIDIA GPU on this machine"
        return Sample(readings, self._driver, trouble, taken, xids)

    def _missing(self, readings: tuple[Reading, ...]) -> tuple[Reading, ...]:
        """GPUs that there were and NVML lists no more: as they were, while there are fewer than before."""
        listed = {reading.uuid for reading in readings}
        fewer = len(readings) < len(self._last)
        gone = [one for one in self._last if fewer and one.uuid not in listed]
        why = "the NVIDIA driver lists it no more"
        return tuple(dataclasses.replace(one, processes={}, trouble=why, answers=False) for one in gone)

    def _read_mig(self, uuid: str) -> MigReading | None:
        try:
            return self._migs.read(uuid)
        except MigError:
            return None

    def close(self) -> None:
        self._migs.close()
        if self._open:
            self._xids.close()
            self._open = False
            disconnect()

    def _connect(self) -> None:
        if self._open:
            return
        self._driver = connect()
        self._open = True

    def _linked(self, readings: tuple[Reading, ...]) -> tuple[Reading, ...]:
        """With their links, which are asked for again only when the GPUs are others."""
        uuids = tuple(reading.uuid for reading in readings)
        if self._links[0] != uuids:
            self._links = (uuids, ranks_of(uuids))
        return tuple(
            dataclasses.replace(reading, links=self._links[1].get(reading.uuid, {})) for reading in readings
        )

    def _read(self, index: int) -> Reading:
        """One GPU; a GPU that fails keeps its last values, with the trouble said. One that has never answered is there
        by its index alone."""
        try:
            reading = _read(pynvml.nvmlDeviceGetHandleByIndex(index), index)
            reading = dataclasses.replace(reading, mig=self._read_mig(reading.uuid))
        except pynvml.NVMLError as problem:
            if problem.value in NO_SESSION:
                raise
            unknown = Reading(index, f"unknown-{index}", "unknown", index, total=0)
            known = next((one for one in self._last if one.index == index), unknown)
            return dataclasses.replace(known, processes={}, trouble=sentence(problem), answers=False)
        if int(self._driver.split(".")[0]) < OLDEST_DRIVER:
            why = f"the driver {self._driver} is older than {OLDEST_DRIVER}, the oldest that is supported"
            return dataclasses.replace(reading, trouble=why)
        return reading


def _read(device: Any, index: int) -> Reading:
    before = _memory(device)
    processes = _processes(device)
    total, reserved, used = _memory(device)
    return Reading(
        index=index,
        uuid=str(pynvml.nvmlDeviceGetUUID(device)),
        model=str(pynvml.nvmlDeviceGetName(device)),
        minor=int(tried(pynvml.nvmlDeviceGetMinorNumber, device, default=index)),
        total=total,
        reserved=reserved,
        used=min(before[2], used),
        processes=processes,
        action=_action(device),
    )


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


PROCESS_LISTS: Final = (
    # (newest form, what drivers before 510 have)
    (pynvml.nvmlDeviceGetComputeRunningProcesses_v3, pynvml.nvmlDeviceGetComputeRunningProcesses_v2),
    (pynvml.nvmlDeviceGetGraphicsRunningProcesses_v3, pynvml.nvmlDeviceGetGraphicsRunningProcesses_v2),
    (pynvml.nvmlDeviceGetMPSComputeRunningProcesses_v3, pynvml.nvmlDeviceGetMPSComputeRunningProcesses_v2),
)


def _processes(device: Any) -> dict[int, int]:
    """Bytes by pid. A process can be in several lists, each with all that it holds."""
    found: dict[int, int] = {}
    for newest, older in PROCESS_LISTS:
        for process in _listed(newest, older, device):
            found[int(process.pid)] = max(found.get(int(process.pid), 0), int(process.usedGpuMemory or 0))
    return found


def _listed(newest: Callable[[Any], Any], older: Callable[[Any], Any], device: Any) -> Any:
    try:
        return newest(device)
    except pynvml.NVMLError_FunctionNotFound:
        return tried(older, device, default=[])
    except pynvml.NVMLError_NotSupported:
        return []
