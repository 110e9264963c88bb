"""What NVML tells of this machine's GPUs.

The session is opened once and kept: opening it takes long on big machines, and without a client the driver
may be unloaded. Whatever NVML refuses becomes a sentence in the sample; the daemon lives on and tries
again. Pids are of the host. Knows nothing of grants: which process has one is for `attribution.py`."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from typing import Final

import pynvml

from gpuportion.allocator.nvml.mig import Migs
from gpuportion.allocator.nvml.nvlinks import ranks_of
from gpuportion.allocator.nvml.one_gpu import OneGpu, Reading
from gpuportion.allocator.nvml.session import connect, disconnect, sentence
from gpuportion.allocator.nvml.xid_events import XidEvents

OLDEST_DRIVER: Final = 470

WHOLE: Final = 60.0
"""Seconds after which everything is read of each GPU, and not only what may have changed since (one_gpu.py)."""

ADVICE: Final = 5.0
"""Seconds after which the driver is asked what must be done about each GPU, and after every XID."""

NO_SESSION: Final = (pynvml.NVML_ERROR_UNINITIALIZED, pynvml.NVML_ERROR_DRIVER_NOT_LOADED)
"""Errors that are not one GPU's."""


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
    moved: bool = True
    """Whether anything of it is new."""


class Nvml:
    """The session with NVML, one for each daemon."""

    def __init__(self) -> None:
        self._open = False
        self._driver = ""
        self._last: tuple[Reading, ...] = ()
        self._links: tuple[tuple[str, ...], dict[str, dict[str, int]]] = ((), {})
        self._gpus: dict[int, OneGpu] = {}
        self._whole_at = self._ask_at = 0.0
        self._asks = True
        self._migs = Migs()
        self._xids = XidEvents()

    def sample(self) -> Sample:
        """Read what there is; never raises for what NVML or the driver does."""
        taken = time.clock_gettime(time.CLOCK_BOOTTIME)
        try:
            self._connect()
            count = pynvml.nvmlDeviceGetCount()
            if taken >= self._whole_at or count != len(self._last):
                self._gpus, self._whole_at = {}, taken + WHOLE
            self._asks = taken >= self._ask_at
            self._ask_at = taken + ADVICE if self._asks else self._ask_at
            readings = self._linked(tuple(self._read(index) for index in range(count)))
            xids = self._xids.read([reading.uuid for reading in readings if reading.answers])
        except (pynvml.NVMLError, OSError) as problem:
            self.close()
            return Sample(trouble=sentence(problem))
        if xids:
            self._ask_at = taken  # what it says of that comes with the next one
        if readings and not any(reading.answers for reading in readings):
            self.close()  # it may be the session that is ill, and not every GPU
        readings += self._missing(readings)
        moved = bool(xids) or [*map(_state, readings)] != [*map(_state, self._last)]
        self._last = readings
        trouble = "" if readings else "NVML finds no NVIDIA GPU on this machine"
        return Sample(readings, self._driver, trouble, taken, xids, moved)

    def _missing(self, readings: tuple[Reading, ...]) -> tuple[Reading, ...]:
        """GPUs that there were and NVML lists no more: as they were, while there are fewer than before."""
        listed = {reading.uuid for reading in readings}
        fewer = len(readings) < len(self._last)
        gone = [one for one in self._last if fewer and one.uuid not in listed]
        why = "the NVIDIA driver lists it no more"
        return tuple(dataclasses.replace(one, processes={}, trouble=why, answers=False) for one in gone)

    def close(self) -> None:
        self._migs.close()
        self._gpus = {}
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
        links = self._links[1]
        return tuple(
            reading
            if reading.links == links.get(reading.uuid, {})
            else dataclasses.replace(reading, links=links.get(reading.uuid, {}))
            for reading in readings
        )

    def _answer(self, index: int) -> Reading:
        """What NVML says of a GPU: what is new of one that it answered for before, else everything."""
        known = self._gpus.get(index)
        if known is not None:
            return known.again(self._last[index], advice=self._asks)
        found = OneGpu(index, self._migs)
        reading = found.whole()
        self._gpus[index] = found
        return reading

    def _read(self, index: int) -> Reading:
        """One GPU; a GPU that fails keeps its last values, with the trouble said. One that has never answered is there
        by its index alone."""
        try:
            reading = self._answer(index)
        except pynvml.NVMLError as problem:
            self._gpus.pop(index, None)
            if problem.value in NO_SESSION:
                raise
            unknown = Reading(index, f"unknown-{index}", "unknown", index, total=0)
            known = next((one for one in self._last if one.index == index), unknown)
            return dataclasses.replace(known, processes={}, trouble=sentence(problem), answers=False)
        if int(self._driver.split(".")[0]) < OLDEST_DRIVER:
            why = f"the driver {self._driver} is older than {OLDEST_DRIVER}, the oldest that is supported"
            return dataclasses.replace(reading, trouble=why)
        return reading


def _state(reading: Reading) -> tuple[object, ...]:
    """What of it may change from one sample to the next."""
    mig = reading.mig and (reading.mig.mode, reading.mig.pending, reading.mig.instances, reading.mig.trouble)
    use = reading.uuid, reading.total, reading.reserved, reading.used, reading.processes
    return *use, reading.trouble, reading.action, reading.answers, mig
