"""NVML's lists of the processes on a GPU, by pid.

pynvml asks for the length, asks again, and makes an object of each entry; a list that is read every second for months
is nearly always as long as before, and the same. So it is asked for once, into the room that the last one took, and
only if its bytes are others are they looked at.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from typing import Any, Final

import pynvml

from gpuportion.allocator.nvml.session import tried

ROOM: Final = 32
"""Entries at first."""

UNKNOWN: Final = pynvml.NVML_VALUE_NOT_AVAILABLE_ulonglong.value


class ProcessList:
    """One kind of them, "Compute", "Graphics" or "MPSCompute", of one GPU."""

    def __init__(self, kind: str, device: Any) -> None:
        self._newest = f"nvmlDeviceGet{kind}RunningProcesses_v3"
        self._older = getattr(pynvml, f"nvmlDeviceGet{kind}RunningProcesses_v2")
        self._device = device
        self._room: Any = (pynvml.c_nvmlProcessInfo_v3_t * ROOM)()
        self._bytes: bytes | None = None
        self._found: Mapping[int, int] = {}

    def read(self) -> Mapping[int, int]:
        """Bytes by pid; the same object where nothing is new."""
        try:
            count = self._fill(pynvml._nvmlGetFunctionPointer(self._newest))
        except pynvml.NVMLError_FunctionNotFound:  # before 510
            return _by_pid(tried(self._older, self._device, default=[]))
        except pynvml.NVMLError_NotSupported:
            return {}
        now = ctypes.string_at(self._room, count * ctypes.sizeof(pynvml.c_nvmlProcessInfo_v3_t))
        if now != self._bytes:
            self._bytes, self._found = now, _by_pid(self._room[:count])
        return self._found

    def _fill(self, function: Any) -> int:
        """How many there are, in `_room`. NVMLError as it comes."""
        while True:
            count = ctypes.c_uint(len(self._room))
            answer = function(self._device, ctypes.byref(count), self._room)
            if answer != pynvml.NVML_ERROR_INSUFFICIENT_SIZE:
                break
            self._room = (pynvml.c_nvmlProcessInfo_v3_t * max(2 * len(self._room), count.value))()
        pynvml._nvmlCheckReturn(answer)
        return int(count.value)


def _by_pid(processes: Any) -> dict[int, int]:
    """A process that is listed twice holds what the larger entry says."""
    found: dict[int, int] = {}
    for process in processes:
        pid, size = int(process.pid), process.usedGpuMemory
        found[pid] = max(found.get(pid, 0), 0 if size is None or size == UNKNOWN else int(size))
    return found
