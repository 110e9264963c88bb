"""What calls of the CUDA runtime, or of PyTorch, make of the driver: the functions that each step calls, in order.

trace.py TRACER driver|runtime|torch     preloaded: TRACER, gpu_trace's library. One line of JSON.
"""

from __future__ import annotations

import ctypes
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

sys.path.append(str(Path(__file__).resolve().parents[3]))

from tests.gpu.programs.driver_api import MIB, Cuda

MOST: Final = 400
"""Calls of a step that are told; the others are counted."""
RUNTIMES: Final = ("libcudart.so", "libcudart.so.13", "libcudart.so.12", "/usr/local/cuda/lib64/libcudart.so")
Steps = Iterator[tuple[str, Callable[[], Any]]]


class Tracer:
    def __init__(self, path: str) -> None:
        self._library = ctypes.CDLL(path)
        self._library.gpu_trace_name.restype = ctypes.c_char_p

    def during(self, act: Callable[[], Any]) -> dict[str, Any]:
        before = self._library.gpu_trace_count()
        act()
        after = self._library.gpu_trace_count()
        calls = [self._library.gpu_trace_name(n).decode() for n in range(before, min(after, before + MOST))]
        return {"count": after - before, "calls": folded(calls)}


def folded(calls: list[str]) -> list[str]:
    """Repetitions of one name as one entry."""
    out: list[tuple[str, int]] = []
    for call in calls:
        if out and out[-1][0] == call:
            out[-1] = (call, out[-1][1] + 1)
        else:
            out.append((call, 1))
    return [call if count == 1 else f"{call} x {count}" for call, count in out]


def by_driver() -> Steps:
    cuda = Cuda()
    held: list[int] = []
    yield "start", cuda.begin
    yield "cuMemAlloc", lambda: held.append(cuda.get("cuMemAlloc_v2", MIB))
    yield "cuMemFree", lambda: cuda.do("cuMemFree_v2", held.pop())


def by_runtime() -> Steps:
    """NVIDIA's own libcudart, shared: PyTorch's copy, or one that the loader finds."""
    runtime = _runtime()
    pointer, stream = ctypes.c_void_p(), ctypes.c_void_p()

    def call(name: str, *args: Any) -> None:
        if result := getattr(runtime, name)(*args):
            raise OSError(f"{name} answers {result}")

    size, to = ctypes.c_size_t(4 * MIB), ctypes.byref(pointer)
    yield "start", lambda: call("cudaFree", None)
    yield "cudaMalloc", lambda: call("cudaMalloc", to, size)
    yield "cudaFree", lambda: call("cudaFree", pointer)
    yield "cudaStreamCreate", lambda: call("cudaStreamCreate", ctypes.byref(stream))
    yield "cudaMallocAsync", lambda: call("cudaMallocAsync", to, size, stream)
    yield "cudaFreeAsync", lambda: call("cudaFreeAsync", pointer, stream)
    yield "cudaStreamSynchronize", lambda: call("cudaStreamSynchronize", stream)
    yield "cudaMallocManaged", lambda: call("cudaMallocManaged", to, size, 1)
    yield "cudaFree of it", lambda: call("cudaFree", pointer)
    yield "cudaMallocPitch", lambda: call("cudaMallocPitch", to, ctypes.byref(size), 1000, 1000)
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    yield "cudaMemGetInfo", lambda: call("cudaMemGetInfo", ctypes.byref(free), ctypes.byref(total))
    yield "cudaDeviceReset", lambda: call("cudaDeviceReset")


def _runtime() -> Any:
    import importlib.util

    candidates = list(RUNTIMES)
    for package in ("nvidia.cu13", "nvidia.cuda_runtime"):
        try:
            found = importlib.util.find_spec(package)
        except ImportError:
            continue
        for folder in (found.submodule_search_locations or []) if found else []:
            candidates = [str(path) for path in Path(folder, "lib").glob("libcudart.so*")] + candidates
    problems = []
    for path in candidates:
        try:
            return ctypes.CDLL(path)
        except OSError as problem:
            problems.append(str(problem))
    raise OSError(f"no libcudart: {problems[0]}")


def by_torch() -> Steps:
    import torch

    held: list[Any] = []
    yield "start", torch.cuda.init
    yield "first tensor", lambda: held.append(torch.empty(MIB, dtype=torch.uint8, device="cuda"))
    yield "100 MiB", lambda: held.append(torch.empty(100 * MIB, dtype=torch.uint8, device="cuda"))
    yield "mem_get_info", torch.cuda.mem_get_info
    yield "fill", lambda: (held[-1].fill_(1), torch.cuda.synchronize())
    yield "drop", held.clear
    yield "empty_cache", torch.cuda.empty_cache


def main() -> None:
    tracer = Tracer(sys.argv[1])
    told: dict[str, Any] = {}
    try:
        for step, act in {"driver": by_driver, "runtime": by_runtime, "torch": by_torch}[sys.argv[2]]():
            told[step] = tracer.during(act)
    except Exception as problem:
        told["problem"] = f"{type(problem).__name__}: {problem}"
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
