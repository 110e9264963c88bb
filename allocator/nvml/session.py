"""The session with NVML, and what its refusals mean in words.

NVML counts its sessions: who reads the GPUs has one, and so has who changes MIG instances; the library stays open as
long as any of them is."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from typing import Any, Final

import pynvml

LIBRARY_VARIABLE: Final = "GPUPORTION_NVML"
"""Path of the libnvidia-ml.so.1 to use instead of the one that the loader finds."""


def connect() -> str:
    """Begin one more session; the driver's version. NVMLError or OSError if there is none to be had."""
    path = os.environ.get(LIBRARY_VARIABLE)
    if path:
        # The loader answers pynvml's dlopen("libnvidia-ml.so.1") with what has that SONAME already.
        ctypes.CDLL(path, ctypes.RTLD_GLOBAL)
    pynvml.nvmlInit()
    try:
        return str(pynvml.nvmlSystemGetDriverVersion())
    except pynvml.NVMLError:
        disconnect()
        raise


def disconnect() -> None:
    tried(pynvml.nvmlShutdown)


def tried(call: Callable[..., Any], *arguments: Any, default: Any = None) -> Any:
    """For what not every board or driver has."""
    try:
        return call(*arguments)
    except pynvml.NVMLError:
        return default


def sentence(problem: Exception) -> str:
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
