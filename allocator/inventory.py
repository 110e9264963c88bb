"""What NVML tells of this machine's GPUs. The only module that talks to it.

The session is opened once and kept: opening it takes long on big machines, and without a client the driver
may be unloaded. Whatever NVML refuses becomes a sentence in the sample; the daemon lives on and tries
again. Pids are of the host. Knows nothing of grants: which process has one is for `attribution.py`."""

from __future__ import annotations

import ctypes
import dataclasses
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import pynvml

from gpuportion.allocator.links import from_nvml

LIBRARY_VARIABLE: Final = "GPUPORTION_NVML"
"""Path of the libnvidia-ml.so.1 to use instead of the one that the loader finds."""

OLDEST_DRIVER: Final = 470


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


@dataclass(frozen=True, slots=True)
class Sample:
    """All GPUs at one moment. `trouble` says why there are none."""

    readings: tuple[Reading, ...] = ()
    driver: str = ""
    trouble: str = ""


class Nvml:
    """The session with NVML, one for each daemon."""

    def __init__(self) -> None:
        self._open = False
        self._driver = ""
        self._last: dict[int, Reading] = {}
        self._links: tuple[tuple[str, ...], dict[str, dict[str, int]]] = ((), {})

    def sample(self) -> Sample:
        """Read everything; never raises for what NVML or the driver does."""
        try:
            self._connect()
            count = pynvml.nvmlDeviceGetCount()
            readings = self._linked(tuple(self._read(index) for index in range(count)))
        except (pynvml.NVMLError, OSError) as problem:
            self.close()
            return Sample(trouble=_sentence(problem))
        self._last |= {reading.index: reading for reading in readings}
        return Sample(readings, self._driver, "" if readings else "NVML finds no NVIDIA GPU on this machine")

    def close(self) -> None:
        if self._open:
            self._open = False
            _tried(pynvml.nvmlShutdown)

    def _connect(self) -> None:
        if self._open:
            return
        path = os.environ.get(LIBRARY_VARIABLE)
        if path:
            # The loader answers pynvml's dlopen("libnvidia-ml.so.1") with what has that SONAME already.
            ctypes.CDLL(path, ctypes.RTLD_GLOBAL)
        pynvml.nvmlInit()
        self._open = True
        self._driver = str(pynvml.nvmlSystemGetDriverVersion())

    def _linked(self, readings: tuple[Reading, ...]) -> tuple[Reading, ...]:
        """With their links, which are asked for again only when the GPUs are others."""
        uuids = tuple(reading.uuid for reading in readings)
        if self._links[0] != uuids:
            self._links = (uuids, _links(uuids))
        return tuple(
            dataclasses.replace(reading, links=self._links[1].get(reading.uuid, {})) for reading in readings
        )

    def _read(self, index: int) -> Reading:
        """One GPU; a GPU that fails keeps its last values, with the trouble said."""
        try:
            reading = _read(pynvml.nvmlDeviceGetHandleByIndex(index), index)
        except pynvml.NVMLError as problem:
            known = self._last.get(index)
            if known is None or problem.value == pynvml.NVML_ERROR_UNINITIALIZED:
                raise
            return dataclasses.replace(known, processes={}, trouble=_sentence(problem))
        if int(self._driver.split(".")[0]) < OLDEST_DRIVER:
            why = f"the driver {self._driver} is older than {OLDEST_DRIVER}, the oldest that is supported"
            return dataclasses.replace(reading, trouble=why)
        return reading


def _read(device: Any, index: int) -> Reading:
    before = _memory(device)
    processes = _processes(device)
    total, reserved, used = _memory(device)
    in_mig_mode = _tried(pynvml.nvmlDeviceGetMigMode, device, default=(0, 0))[0] == 1
    return Reading(
        index=index,
        uuid=str(pynvml.nvmlDeviceGetUUID(device)),
        model=str(pynvml.nvmlDeviceGetName(device)),
        minor=int(_tried(pynvml.nvmlDeviceGetMinorNumber, device, default=index)),
        total=total,
        reserved=reserved,
        used=min(before[2], used),
        processes=processes,
        trouble="it is in MIG mode, and MIG instances are not made yet" if in_mig_mode else "",
    )


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
        return _tried(older, device, default=[])
    except pynvml.NVMLError_NotSupported:
        return []


def _links(uuids: Sequence[str]) -> dict[str, dict[str, int]]:
    """By UUID, how well each GPU is linked to the others; a GPU that cannot say has none."""
    devices = {uuid: _tried(pynvml.nvmlDeviceGetHandleByUUID, uuid) for uuid in uuids}
    found = {uuid: _place(device) for uuid, device in devices.items() if device is not None}
    places = {uuid: place for uuid, place in found.items() if place is not None}
    ends = {uuid: Counter(_remote_ends(devices[uuid])) for uuid in places}
    ranks = {}
    for uuid in places:
        others = [other for other in places if other != uuid]
        levels = {
            other: _tried(
                pynvml.nvmlDeviceGetTopologyCommonAncestor, devices[uuid], devices[other], default=-1
            )
            for other in others
        }
        switched = {other: min(ends[uuid][SWITCH], ends[other][SWITCH]) for other in others}
        nvlinks = {other: ends[uuid][places[other]] + switched[other] for other in others}
        ranks[uuid] = from_nvml(levels, nvlinks)
    return ranks


Place = tuple[int, int, int]
SWITCH: Final[Place] = (-1, -1, -1)
"""Where an NVLink ends that leads to a switch, and so to every GPU that has one, too."""


def _place(device: Any) -> Place | None:
    """Where on the PCI bus a GPU is: what an NVLink's other end is called by."""
    info = _tried(pynvml.nvmlDeviceGetPciInfo, device)
    return None if info is None else _pci(info)


def _pci(info: Any) -> Place:
    return int(info.domain), int(info.bus), int(info.device)


def _remote_ends(device: Any) -> Iterator[Place]:
    """Where each active NVLink of a GPU leads."""
    for link in range(pynvml.NVML_NVLINK_MAX_LINKS):
        state = _tried(pynvml.nvmlDeviceGetNvLinkState, device, link)
        if state is None:
            return
        if not state:
            continue
        kind = _tried(pynvml.nvmlDeviceGetNvLinkRemoteDeviceType, device, link)
        if kind == pynvml.NVML_NVLINK_DEVICE_TYPE_SWITCH:
            yield SWITCH
        elif (info := _tried(pynvml.nvmlDeviceGetNvLinkRemotePciInfo, device, link)) is not None:
            yield _pci(info)


def _tried(call: Callable[..., Any], *arguments: Any, default: Any = None) -> Any:
    """For what not every board or driver has."""
    try:
        return call(*arguments)
    except pynvml.NVMLError:
        return default


def _sentence(problem: Exception) -> str:
    if isinstance(problem, pynvml.NVMLError_LibraryNotFound):
        return "libnvidia-ml.so.1, the NVIDIA driver's management library, is not on this machine"
    if isinstance(problem, pynvml.NVMLError_LibRmVersionMismatch):
        return "the NVIDIA driver was updated but its old kernel module is still loaded; reboot"
    if isinstance(problem, pynvml.NVMLError_GpuIsLost):
        return "the GPU has fallen off the bus or is otherwise lost"
    return f"the NVIDIA driver's management library (NVML) answers: {problem}"


def library_folder() -> str:
    """The folder that NVML was loaded from; libcuda.so.1 of the same driver lies there too. "" if it is
    not."""
    with open("/proc/self/maps") as maps:
        for line in maps:
            path = line.rstrip("\n").partition("/")[2]
            if os.path.basename(path).startswith("libnvidia-ml.so"):
                return os.path.dirname(f"/{path}")
    return ""
