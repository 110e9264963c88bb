"""The unmodified pynvml, told by standard input what to do: an expression a line, over `n` and the verbs below.

create(14, 0)      -> {"value": 3}, the GPU instance's id
create(14, 0)      -> {"error": "InsufficientResources"}
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from collections.abc import Callable
from typing import Any

import pynvml as n


def device(i: int = 0) -> Any:
    return n.nvmlDeviceGetHandleByIndex(i)


def profiles(i: int = 0) -> list[list[Any]]:
    """[name, index, id, slices, at most, multiprocessors, MiB] of each."""
    found = []
    for index in range(64):
        try:
            info = n.nvmlDeviceGetGpuInstanceProfileInfo(device(i), index)
        except n.NVMLError_NotSupported:
            continue
        except n.NVMLError_InvalidArgument:
            break
        numbers = [info.id, info.sliceCount, info.instanceCount, info.multiprocessorCount, info.memorySizeMB]
        found.append([info.name.removeprefix("MIG "), index, *numbers])
    return found


def placements(profile: int, i: int = 0) -> list[list[int]]:
    count = ctypes.c_uint()
    n.nvmlDeviceGetGpuInstancePossiblePlacements(device(i), profile, None, ctypes.byref(count))
    out = (n.c_nvmlGpuInstancePlacement_t * count.value)()
    n.nvmlDeviceGetGpuInstancePossiblePlacements(device(i), profile, out, ctypes.byref(count))
    return [[one.start, one.size] for one in out]


def capacity(profile: int, i: int = 0) -> int:
    return int(n.nvmlDeviceGetGpuInstanceRemainingCapacity(device(i), profile))


def create(profile: int, start: int | None = None, size: int | None = None, i: int = 0) -> int:
    """A GPU instance there, or where the driver likes; its id."""
    if start is None:
        made = n.nvmlDeviceCreateGpuInstance(device(i), profile)
    else:
        where = n.c_nvmlGpuInstancePlacement_t(start, size or placements(profile, i)[0][1])
        made = n.nvmlDeviceCreateGpuInstanceWithPlacement(device(i), profile, ctypes.byref(where))
    return int(n.nvmlGpuInstanceGetInfo(made).id)


def gi(identity: int, i: int = 0) -> Any:
    return n.nvmlDeviceGetGpuInstanceById(device(i), identity)


def ci(gi_id: int, ci_id: int = 0, i: int = 0) -> Any:
    return n.nvmlGpuInstanceGetComputeInstanceById(gi(gi_id, i), ci_id)


def compute(gi_id: int, index: int, start: int | None = None, i: int = 0) -> list[Any]:
    """A compute instance by its profile's index; its id and the MIG device's UUID."""
    profile = n.nvmlGpuInstanceGetComputeInstanceProfileInfo(gi(gi_id, i), index, 0)
    if start is None:
        made = n.nvmlGpuInstanceCreateComputeInstance(gi(gi_id, i), profile.id)
    else:
        where = n.c_nvmlComputeInstancePlacement_t(start, profile.sliceCount)
        made = n.nvmlGpuInstanceCreateComputeInstanceWithPlacement(
            gi(gi_id, i), profile.id, ctypes.byref(where)
        )
    info = n.nvmlComputeInstanceGetInfo_v2(made)
    return [info.id, n.nvmlDeviceGetUUID(info.device)]


def destroy(gi_id: int, i: int = 0) -> None:
    n.nvmlGpuInstanceDestroy(gi(gi_id, i))


def destroy_compute(gi_id: int, ci_id: int = 0, i: int = 0) -> None:
    n.nvmlComputeInstanceDestroy(ci(gi_id, ci_id, i))


def instances(i: int = 0) -> list[list[int]]:
    """[id, profile id, start, size] of each GPU instance, by profile."""
    found = []
    for _, _, profile, _, most, *_ in profiles(i):
        out, count = (n.c_nvmlGpuInstance_t * most)(), ctypes.c_uint()
        n.nvmlDeviceGetGpuInstances(device(i), profile, out, ctypes.byref(count))
        for handle in out[: count.value]:
            info = n.nvmlGpuInstanceGetInfo(ctypes.c_void_p(ctypes.cast(handle, ctypes.c_void_p).value))
            found.append([info.id, info.profileId, info.placement.start, info.placement.size])
    return sorted(found)


def computes(gi_id: int, index: int, i: int = 0) -> list[int]:
    """Ids of the compute instances of a profile."""
    out, count = (n.c_nvmlComputeInstance_t * 8)(), ctypes.c_uint()
    n.nvmlGpuInstanceGetComputeInstances(gi(gi_id, i), index, out, ctypes.byref(count))
    handles = (ctypes.c_void_p(ctypes.cast(handle, ctypes.c_void_p).value) for handle in out[: count.value])
    return [n.nvmlComputeInstanceGetInfo_v2(handle).id for handle in handles]


def mig(index: int, i: int = 0) -> Any:
    return n.nvmlDeviceGetMigDeviceHandleByIndex(device(i), index)


def by(uuid: str) -> Any:
    return n.nvmlDeviceGetHandleByUUID(uuid)


def processes(handle: Any) -> list[list[int]]:
    listed = n.nvmlDeviceGetComputeRunningProcesses(handle)
    return [[p.pid, p.usedGpuMemory, p.gpuInstanceId, p.computeInstanceId] for p in listed]


def clear(i: int = 0) -> None:
    for identity, *_ in instances(i):
        for index in range(5):
            try:
                for found in computes(identity, index, i):
                    destroy_compute(identity, found, i)
            except n.NVMLError_NotSupported:
                pass
        destroy(identity, i)


def answer(line: str, names: dict[str, Any]) -> dict[str, Any]:
    try:
        return {"value": eval(line, names)}
    except n.NVMLError as error:
        return {"error": type(error).__name__.removeprefix("NVMLError_")}


VERBS: list[Callable[..., Any]] = [
    device, profiles, placements, capacity, create, gi, ci, compute, destroy, destroy_compute, instances,
    computes, mig, by, processes, clear,
]  # fmt: skip

if __name__ == "__main__":
    n.nvmlInit()
    known = {"n": n, "os": os, "ctypes": ctypes, **{verb.__name__: verb for verb in VERBS}}
    for said in sys.stdin:
        print(json.dumps(answer(said, known)), flush=True)
