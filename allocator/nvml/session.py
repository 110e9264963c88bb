"""The session with NVML, and what its refusals mean in words.

NVML counts its sessions: who reads the GPUs has one, and so has who changes MIG instances; the library stays open as
long as any of them is. A library whose driver was exchanged meanwhile is let go, if no session is left, and the one
that is on disk then is loaded."""

from __future__ import annotations

import _ctypes
import ctypes
import os
import threading
from collections.abc import Callable
from typing import Any, Final

import pynvml

NAME: Final = "libnvidia-ml.so.1"
LIBRARY_VARIABLE: Final = "GPUPORTION_NVML"
"""Path of the libnvidia-ml.so.1 to use instead of the one that the loader finds."""


_lock: Final = threading.Lock()
_sessions: list[None] = []


def connect() -> str:
    """Begin one more session; the driver's version. NVMLError or OSError if there is none to be had."""
    with _lock:
        try:
            _init()
        except pynvml.NVMLError_LibRmVersionMismatch:
            if _sessions:
                raise
            _unload()
            _init()
        _sessions.append(None)
    try:
        return str(pynvml.nvmlSystemGetDriverVersion())
    except pynvml.NVMLError:
        disconnect()
        raise


def disconnect() -> None:
    with _lock:
        if _sessions:
            _sessions.pop()
        tried(pynvml.nvmlShutdown)


def _init() -> None:
    if pynvml.nvmlLib is None:
        # pynvml would look for its own name alone, and asks no more once this is set.
        pynvml.nvmlLib = _load(os.environ.get(LIBRARY_VARIABLE) or NAME)
    pynvml.nvmlInit()


def _load(path: str) -> ctypes.CDLL:
    try:
        return ctypes.CDLL(path, ctypes.RTLD_GLOBAL)
    except OSError:
        if path != NAME:
            raise
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND) from None


def _unload() -> None:
    """Only while nobody is in it. pynvml keeps each function that it has called."""
    library, pynvml.nvmlLib = pynvml.nvmlLib, None
    pynvml._nvmlGetFunctionPointer_cache.clear()
    _ctypes.dlclose(library._handle)


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
        return (
            "the NVIDIA driver's library and its kernel module are of different versions: after an update reboot, "
            "or load the module anew; if that was done, restart gpuportiond"
        )
    if isinstance(problem, pynvml.NVMLError_ResetRequired):
        return "the GPU must be reset: end what uses it, then nvidia-smi --gpu-reset"
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
