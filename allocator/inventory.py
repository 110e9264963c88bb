"""What NVML tells of this machine's GPUs. The only module that talks to it.

The session is opened once and kept: opening it takes long on big machines, and without a client the driver
may be unloaded. Whatever NVML refuses becomes a sentence in the sample; the daemon lives on and tries
again. Pids are of the host. Knows nothing of grants: which process has one is for `attribution.py`."""

from __future__ import annotations

import ctypes
import dataclasses
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import pynvml

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

    def sample(self) -> Sample:
        """Read everything; never raises for what NVML or the driver does."""
        try:
            self._connect()
            count = pynvml.nvmlDeviceGetCount()
            readings = tuple(self._read(index) for index in range(count))
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
