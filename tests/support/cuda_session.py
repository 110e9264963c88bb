"""A CUDA client that does what its standard input says, a command a line, and answers in JSON, a line each.

It runs in containers as well as on the host, with only NVIDIA's cuda-bindings and nvidia-ml-py beside it.

    alloc BYTES      cuMemAlloc                 -> {"result": "CUDA_SUCCESS", "id": 0}
    async BYTES      cuMemAllocAsync            -> the same
    free ID          cuMemFree
    load COUNT       cuModuleLoadData of so many modules -> {"result": "CUDA_SUCCESS"}; they stay
    info             cuMemGetInfo, cuDeviceTotalMem  -> {"free": ..., "total": ..., "device_total": ...}
    nvml             memory and processes by NVML -> {"total": ..., "used": ..., "processes": {pid: bytes}}
    mig              what NVML and CUDA show of MIG -> {"boards": ..., "aggregate": ..., "parts": {UUID: {"total": ...,
                     "used": ..., "processes": ...}}, "cuda": [names of all devices]}
    pid              -> {"pid": ...}
    end              leaves the loop
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

PTX = b""".version 7.0
.target sm_70
.address_size 64
.visible .entry nothing() { ret; }
"""


def memory_now() -> dict[str, Any]:
    from cuda.bindings import driver as cu

    _, free, total = cu.cuMemGetInfo()
    return {"free": free, "total": total, "device_total": cu.cuDeviceTotalMem(0)[1]}


def seen_by_nvml() -> dict[str, Any]:
    import pynvml

    pynvml.nvmlInit()
    device = pynvml.nvmlDeviceGetHandleByIndex(0)
    memory = pynvml.nvmlDeviceGetMemoryInfo(device)
    processes = {p.pid: p.usedGpuMemory for p in pynvml.nvmlDeviceGetComputeRunningProcesses(device)}
    devices = pynvml.nvmlDeviceGetCount()
    return {"total": memory.total, "used": memory.used, "processes": processes, "devices": devices}


def seen_of_mig() -> dict[str, Any]:
    """`aggregate`: whether NVML tells what all instances of a board hold together."""
    import pynvml
    from cuda.bindings import driver as cu

    pynvml.nvmlInit()
    boards = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
    told = [_told(lambda board=board: pynvml.nvmlDeviceGetMemoryInfo(board)) for board in boards]
    told += [
        _told(lambda board=board: pynvml.nvmlDeviceGetComputeRunningProcesses(board)) for board in boards
    ]
    parts = {pynvml.nvmlDeviceGetUUID(part): part for board in boards for part in _parts(board)}
    names = [cu.cuDeviceGetName(96, i)[1].split(b"\0")[0].decode() for i in range(cu.cuDeviceGetCount()[1])]
    shown = {uuid: _part(part) for uuid, part in parts.items()}
    return {"boards": len(boards), "aggregate": any(told), "parts": shown, "cuda": names}


def _told(call: Any) -> bool:
    import pynvml

    try:
        call()
    except pynvml.NVMLError_NoPermission:
        return False
    return True


def _parts(board: Any) -> list[Any]:
    import pynvml

    found: list[Any] = []
    while True:
        try:
            found.append(pynvml.nvmlDeviceGetMigDeviceHandleByIndex(board, len(found)))
        except (pynvml.NVMLError_NotFound, pynvml.NVMLError_NotSupported):
            return found


def _part(part: Any) -> dict[str, Any]:
    import pynvml

    memory = pynvml.nvmlDeviceGetMemoryInfo(part)
    processes = {p.pid: p.usedGpuMemory for p in pynvml.nvmlDeviceGetComputeRunningProcesses(part)}
    return {"total": memory.total, "used": memory.used, "processes": processes}


class Session:
    """One context on the first device, and what was allocated in it."""

    def __init__(self) -> None:
        from cuda.bindings import driver as cu

        self.cu: Any = cu
        self.held: list[Any] = []
        self.opened = self._open()

    def _open(self) -> str:
        cu = self.cu
        for step in (
            lambda: cu.cuInit(0),
            lambda: cu.cuDevicePrimaryCtxRetain(0),
        ):
            result, *value = step()
            if result != cu.CUresult.CUDA_SUCCESS:
                return str(result.name)
        return str(cu.cuCtxSetCurrent(value[0])[0].name)

    def alloc(self, size: int, how: str = "cuMemAlloc") -> dict[str, Any]:
        arguments = (size,) if how == "cuMemAlloc" else (size, 0)
        result, pointer = getattr(self.cu, how)(*arguments)
        if result != self.cu.CUresult.CUDA_SUCCESS:
            return {"result": result.name}
        self.held.append(pointer)
        return {"result": result.name, "id": len(self.held) - 1}

    def load(self, count: int) -> str:
        results = {self.cu.cuModuleLoadData(PTX)[0].name for _ in range(count)}
        return str(*results) if len(results) == 1 else str(sorted(results))

    def answer(self, command: str, *words: str) -> dict[str, Any]:
        if command == "alloc":
            return self.alloc(int(words[0]))
        if command == "async":
            return self.alloc(int(words[0]), "cuMemAllocAsync")
        if command == "free":
            return {"result": self.cu.cuMemFree(self.held[int(words[0])])[0].name}
        if command == "load":
            return {"result": self.load(int(words[0]))}
        answers = {
            "info": memory_now,
            "nvml": seen_by_nvml,
            "mig": seen_of_mig,
            "pid": lambda: {"pid": os.getpid()},
        }
        return answers[command]()


def main() -> None:
    session = Session()
    print(json.dumps({"opened": session.opened, "pid": os.getpid()}), flush=True)
    for line in sys.stdin:
        if line.strip() == "end":
            break
        print(json.dumps(session.answer(*line.split())), flush=True)


if __name__ == "__main__":
    main()
