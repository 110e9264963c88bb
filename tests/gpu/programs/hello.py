"""First contact from Python: a context, memory, what the driver says, and which files of it are loaded. One line of
JSON; a failure is told with the step at which it came.

    hello.py            the driver API
    hello.py torch      PyTorch
    hello.py torch simulated    ... without cuBLAS: NVIDIA's runtime is in it, and no simulated driver runs that
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[3]))

from tests.gpu.programs.driver_api import MIB, OUT_OF_MEMORY, Cuda

NAMES = ("libcuda", "libnvidia-ml", "libcudart", "libnvidia-ptxjitcompiler", "gpuportion")


def loaded() -> list[str]:
    """Files of the driver and of ours that this process has mapped."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    paths = {line.split(None, 5)[5] for line in lines if len(line.split(None, 5)) == 6}
    return sorted(path for path in paths if any(name in os.path.basename(path) for name in NAMES))


def by_driver() -> Iterator[tuple[str, Any]]:
    cuda = Cuda()
    version = ctypes.c_int()
    yield "version", (cuda.result("cuDriverGetVersion", ctypes.byref(version)), version.value)
    cuda.begin()
    free, total = cuda.info()
    yield "total", total
    yield "free", free
    at = cuda.get("cuMemAlloc_v2", 64 * MIB)
    yield "after 64 MiB", cuda.info()[0]
    yield "over", cuda.result("cuMemAlloc_v2", ctypes.byref(ctypes.c_uint64()), total)
    cuda.do("cuMemsetD8_v2", at, 7, 64 * MIB)
    back = ctypes.create_string_buffer(16)
    cuda.do("cuMemcpyDtoH_v2", back, at + 64 * MIB - 16, 16)
    yield "memory", back.raw == b"\x07" * 16
    cuda.launch(cuda.module())
    cuda.do("cuCtxSynchronize")
    yield "launched", True
    cuda.do("cuMemFree_v2", at)
    yield "refusal", OUT_OF_MEMORY


def by_torch() -> Iterator[tuple[str, Any]]:
    import torch

    yield "torch", f"{torch.__version__}, CUDA {torch.version.cuda}"
    yield "available", torch.cuda.is_available()
    free, total = torch.cuda.mem_get_info()
    yield "free", free
    yield "total", total
    yield "properties", torch.cuda.get_device_properties(0).total_memory
    ones = torch.ones(1 << 20, device="cuda")
    yield "sum", float((ones + ones).sum().cpu())
    try:
        torch.empty(total, dtype=torch.uint8, device="cuda")
        yield "over", "none"
    except RuntimeError as refusal:
        yield "over", type(refusal).__name__
    if "simulated" not in sys.argv:
        product = torch.eye(256, device="cuda") @ torch.eye(256, device="cuda")
        yield "product", float(product.sum().cpu())


def main() -> None:
    told: dict[str, Any] = {}
    step = "the start"
    try:
        for step, value in by_torch() if "torch" in sys.argv else by_driver():
            told[step] = value
    except Exception as problem:
        told["problem"] = f"after {step!r}: {type(problem).__name__}: {problem}"
    print(json.dumps({**told, "loaded": loaded()}), flush=True)


if __name__ == "__main__":
    main()
