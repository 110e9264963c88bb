"""What every way of asking says of the GPU's memory, from within a grant, while this process holds a gibibyte of it.

views.py [torch]       one line of JSON: by way, total and used in bytes, or what went wrong
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

sys.path.append(str(Path(__file__).resolve().parents[3]))

from tests.gpu.programs.driver_api import MIB, Cuda

HELD: Final = 1024 * MIB
SMI_FOLDERS: Final = "/usr/bin:/usr/local/bin:/usr/local/nvidia/bin"


def by_cuda(cuda: Cuda) -> dict[str, Any]:
    free, total = cuda.info()
    return {"total": total, "used": total - free, "device_total": cuda.get("cuDeviceTotalMem_v2", 0)}


def by_torch() -> dict[str, Any]:
    import torch

    free, total = torch.cuda.mem_get_info()
    return {
        "total": total,
        "used": total - free,
        "device_total": torch.cuda.get_device_properties(0).total_memory,
    }


def by_nvml() -> dict[str, Any]:
    import pynvml

    pynvml.nvmlInit()
    device = pynvml.nvmlDeviceGetHandleByIndex(0)
    memory = pynvml.nvmlDeviceGetMemoryInfo(device)
    processes = {each.pid: each.usedGpuMemory for each in pynvml.nvmlDeviceGetComputeRunningProcesses(device)}
    return {
        "total": memory.total,
        "used": memory.used,
        "processes": processes,
        "devices": pynvml.nvmlDeviceGetCount(),
    }


def by_smi() -> dict[str, Any]:
    smi = shutil.which("nvidia-smi") or shutil.which("nvidia-smi", path=SMI_FOLDERS)
    if smi is None:
        raise FileNotFoundError("there is no nvidia-smi")
    memory = _query(smi, "--query-gpu=memory.total,memory.used")[0]
    listed = _query(smi, "--query-compute-apps=pid,used_memory")
    processes = {row[0]: row[1] * MIB for row in listed}
    return {"total": memory[0] * MIB, "used": memory[1] * MIB, "processes": processes}


def _query(smi: str, what: str) -> list[list[int]]:
    command = [smi, what, "--format=csv,noheader,nounits"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    return [[int(word) for word in line.split(",")] for line in done.stdout.splitlines()]


def by_nvitop() -> dict[str, Any]:
    nvitop: Any = importlib.import_module("nvitop")
    device = nvitop.Device(0)
    return {
        "total": device.memory_total(),
        "used": device.memory_used(),
        "processes": {pid: process.gpu_memory() for pid, process in device.processes().items()},
    }


def main() -> None:
    cuda = Cuda().begin()
    cuda.get("cuMemAlloc_v2", HELD)
    ways: dict[str, Callable[[], dict[str, Any]]] = {
        "cuMemGetInfo": lambda: by_cuda(cuda),
        "pynvml": by_nvml,
        "nvidia-smi": by_smi,
        "nvitop": by_nvitop,
    }
    if "torch" in sys.argv:
        ways = {"torch": by_torch, **ways}
    print(json.dumps({"pid": os.getpid(), **{name: asked(ask) for name, ask in ways.items()}}), flush=True)


def asked(ask: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return ask()
    except (ImportError, FileNotFoundError) as missing:
        return {"missing": str(missing)}
    except Exception as problem:
        return {"problem": f"{type(problem).__name__}: {problem}"}


if __name__ == "__main__":
    main()
