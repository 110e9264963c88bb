"""Takes memory by each path of the driver to its refusal, frees it, and goes on to the next; a line of JSON each.

    paths.py MOST PIECE [PATH ...]

PIECE: bytes to begin with; halved at each refusal, down to the smallest. MOST: bytes that are enough, refused or not:
more managed memory than a GPU has can hang it, so nobody asks for it where the library doesn't hold.

Told of each path: what it was refused with, how much it had by then, whether the block that was there before is
intact, and how much is free before and after. Where two programs are to meet, a line on standard input is waited for.
"""

from __future__ import annotations

import ctypes
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

sys.path.append(str(Path(__file__).resolve().parents[3]))

from tests.gpu.programs.driver_api import (
    MIB,
    Cuda,
    CudaError,
    allocation_node,
    box,
    buffer,
    pool_properties,
    vmm_properties,
)

SENTINEL: Final = 8 * MIB
ROW: Final = 16 << 10
"""Bytes of a row of the arrays and pitched blocks: it needs no padding."""


@dataclass(frozen=True)
class Way:
    """`take` makes a block of so many bytes and answers what `drop` needs; `smallest`, `largest`: of a piece, bytes."""

    take: Callable[[Cuda, int], Any]
    drop: Callable[[Cuda, Any], None]
    after: Callable[[Cuda], None]
    smallest: int = 2 * MIB
    largest: int = 1024 * MIB


def take_pitched(cuda: Cuda, size: int) -> int:
    pitch = ctypes.c_size_t()
    return cuda.get("cuMemAllocPitch_v2", ctypes.byref(pitch), ROW, size // ROW, 4)


def take_handle(cuda: Cuda, size: int) -> int:
    return cuda.get("cuMemCreate", size, vmm_properties(), 0)


def take_mapped(cuda: Cuda, size: int) -> tuple[int, int]:
    """As expandable segments do: the handle is released at once, the mapping keeps the memory."""
    handle = take_handle(cuda, size)
    at = cuda.get("cuMemAddressReserve", size, 0, 0, 0)
    cuda.do("cuMemMap", at, size, 0, handle, 0)
    cuda.do("cuMemRelease", handle)
    cuda.do("cuMemSetAccess", at, size, buffer("<iii", 1, 0, 3), 1)
    return at, size


def drop_mapped(cuda: Cuda, held: tuple[int, int]) -> None:
    cuda.do("cuMemUnmap", *held)
    cuda.do("cuMemAddressFree", *held)


def take_array(cuda: Cuda, size: int) -> int:
    return cuda.get("cuArray3DCreate_v2", box(ROW // 16, size // ROW))


def take_mipmapped(cuda: Cuda, size: int) -> int:
    return cuda.get("cuMipmappedArrayCreate", box(ROW // 16, size // ROW), 1)


def take_graph(cuda: Cuda, size: int) -> tuple[int, int, int]:
    graph = cuda.get("cuGraphCreate", 0)
    try:
        params = allocation_node(size)
        cuda.get("cuGraphAddMemAllocNode", graph, None, 0, params)
        instance = cuda.get("cuGraphInstantiateWithFlags", graph, 0)
        try:
            cuda.do("cuGraphLaunch", instance, 0)
            cuda.do("cuCtxSynchronize")
        except CudaError:
            cuda.do("cuGraphExecDestroy", instance)
            raise
    except CudaError:
        cuda.do("cuGraphDestroy", graph)
        raise
    return int.from_bytes(params.raw[-8:], "little"), instance, graph


def drop_graph(cuda: Cuda, held: tuple[int, int, int]) -> None:
    cuda.do("cuMemFree_v2", held[0])
    cuda.do("cuGraphExecDestroy", held[1])
    cuda.do("cuGraphDestroy", held[2])


def own_pool(cuda: Cuda) -> int:
    """One that keeps nothing, made at the first call."""
    if not _pool:
        _pool.append(cuda.get("cuMemPoolCreate", pool_properties()))
    return _pool[0]


_pool: list[int] = []


def trim(cuda: Cuda) -> None:
    """All that pools and graphs keep."""
    cuda.do("cuCtxSynchronize")
    for pool in (*_pool, cuda.get("cuDeviceGetDefaultMemPool", 0)):
        cuda.do("cuMemPoolTrimTo", pool, 0)
    cuda.do("cuDeviceGraphMemTrim", 0)


def nothing(cuda: Cuda) -> None:
    cuda.do("cuCtxSynchronize")


def free(cuda: Cuda, at: int) -> None:
    cuda.do("cuMemFree_v2", at)


def free_async(cuda: Cuda, at: int) -> None:
    cuda.do("cuMemFreeAsync", at, 0)


def linear(cuda: Cuda, size: int) -> int:
    return cuda.get("cuMemAlloc_v2", size)


def managed(cuda: Cuda, size: int) -> int:
    return cuda.get("cuMemAllocManaged", size, 1)


PATHS: Final = {
    "linear": Way(linear, free, nothing),
    "small": Way(linear, free, nothing, 64 << 10, 256 << 10),
    "pitched": Way(take_pitched, free, nothing),
    "managed": Way(managed, free, nothing),
    "async": Way(lambda cuda, size: cuda.get("cuMemAllocAsync", size, 0), free_async, trim),
    "pool": Way(
        lambda cuda, size: cuda.get("cuMemAllocFromPoolAsync", size, own_pool(cuda), 0), free_async, trim
    ),
    "handles": Way(take_handle, lambda cuda, held: cuda.do("cuMemRelease", held), nothing),
    "mapped": Way(take_mapped, drop_mapped, nothing),
    "array": Way(take_array, lambda cuda, held: cuda.do("cuArrayDestroy", held), nothing),
    "mipmapped": Way(take_mipmapped, lambda cuda, held: cuda.do("cuMipmappedArrayDestroy", held), nothing),
    "graph": Way(take_graph, drop_graph, trim),
}


def fill(cuda: Cuda, path: Way, piece: int, most: int) -> tuple[list[Any], int, set[int]]:
    """What was had, its bytes, and the results of the refusals."""
    held: list[Any] = []
    had, refused = 0, set()
    while piece >= path.smallest and had <= most:
        try:
            held.append(path.take(cuda, piece))
            had += piece
        except CudaError as refusal:
            refused.add(refusal.result)
            piece //= 2
    return held, had, refused


def main() -> None:
    cuda = Cuda().begin()
    sentinel = linear(cuda, SENTINEL)
    most, piece = int(sys.argv[1]), int(sys.argv[2])
    names = sys.argv[3:] or list(PATHS)
    for number, name in enumerate(names):
        path = PATHS[name]
        cuda.do("cuMemsetD8_v2", sentinel, number + 1, SENTINEL)
        before = cuda.info()[0]
        held, had, refused = fill(cuda, path, min(piece, path.largest), most)
        full = cuda.info()[0]
        back = ctypes.create_string_buffer(SENTINEL)
        cuda.do("cuMemcpyDtoH_v2", back, sentinel, SENTINEL)
        say(path=name, had=had, blocks=len(held), refused=sorted(refused), before=before, full=full)
        sys.stdin.readline()
        for each in held:
            path.drop(cuda, each)
        path.after(cuda)
        intact = back.raw == bytes([number + 1]) * SENTINEL
        say(path=name, intact=intact, after=cuda.info()[0])


def say(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    main()
