"""How this driver takes memory: granularities, slabs, pools, arrays, modules, contexts. One line of JSON; sizes in
bytes, as the device's free memory falls. Without our library, alone on the GPU.
"""

from __future__ import annotations

import ctypes
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

sys.path.append(str(Path(__file__).resolve().parents[3]))

from tests.gpu.programs.driver_api import (
    MIB,
    PTX,
    Cuda,
    CudaError,
    allocation_node,
    box,
    buffer,
    pool_properties,
    vmm_properties,
)

RESERVED: Final = 5
"""CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT"""
GRAPH_RESERVED: Final = 2
LIMITS: Final = {"stack": 0, "printf": 1, "heap": 2}
LINEAR: Final = (
    1,
    64 << 10,
    512 << 10,
    MIB - 1,
    MIB,
    MIB + 1,
    2 * MIB - 1,
    2 * MIB,
    2 * MIB + 1,
    3 * MIB,
    33 * MIB,
)
POOLED: Final = (1, MIB, 31 * MIB, 33 * MIB, 100 * MIB, 1000 * MIB)
ARRAYS: Final = {"1 x 1": (1, 1), "64 x 64": (64, 64), "1000 x 1000": (1000, 1000), "1024 x 1024": (1024, 1024),
                 "4000 x 3000": (4000, 3000), "100 x 100 x 100": (100, 100, 100)}  # fmt: skip
MANY: Final = 16
BIG: Final = b".visible .global .align 4 .b8 large[16777216];\n"
DEFERRED: Final = 0x80


class Habits:
    def __init__(self) -> None:
        self.cuda = Cuda().begin()
        self.cuda.do("cuMemFree_v2", self.cuda.get("cuMemAlloc_v2", 1))  # what the first block brings along

    def fall(self, act: Callable[[], Any]) -> tuple[int, Any]:
        """By how much the device's free memory falls, and what the act gives."""
        before = self.cuda.info()[0]
        made = act()
        self.cuda.do("cuCtxSynchronize")
        return before - self.cuda.info()[0], made

    def granularity(self) -> dict[str, int]:
        asked = {"minimum": 0, "recommended": 1}
        call = "cuMemGetAllocationGranularity"
        return {name: self.cuda.get(call, vmm_properties(), which) for name, which in asked.items()}

    def linear(self) -> dict[str, int]:
        """One block of a size, alone."""
        found = {}
        for size in LINEAR:
            found[str(size)], at = self.fall(lambda size=size: self.cuda.get("cuMemAlloc_v2", size))  # type: ignore[misc]
            self.cuda.do("cuMemFree_v2", at)
        return found

    def slab(self) -> dict[str, Any]:
        """Blocks of 64 KiB until the second time that memory is taken for them: how many share a slab."""
        held: list[int] = []
        falls: list[tuple[int, int]] = []
        while len(falls) < 2 and len(held) < 4096:
            taken, at = self.fall(lambda: self.cuda.get("cuMemAlloc_v2", 64 << 10))
            held.append(at)
            if taken:
                falls.append((len(held), taken))
        apart = sorted({held[n + 1] - held[n] for n in range(len(held) - 1)})[:4]
        for at in held:
            self.cuda.do("cuMemFree_v2", at)
        return {"falls": falls, "apart": apart}

    def handle(self) -> dict[str, int]:
        size = 2 * MIB
        taken, handle = self.fall(lambda: self.cuda.get("cuMemCreate", size, vmm_properties(), 0))
        self.cuda.do("cuMemRelease", handle)
        return {str(size): taken}

    def pool(self) -> dict[str, Any]:
        """What a pool of our own has reserved after a block of a size, and what the device gave for it."""
        found: dict[str, Any] = {}
        for size in POOLED:
            pool = self.cuda.get("cuMemPoolCreate", pool_properties())
            take = ("cuMemAllocFromPoolAsync", size, pool, 0)
            taken, at = self.fall(lambda take=take: self.cuda.get(*take))  # type: ignore[misc]
            found[str(size)] = {"reserved": self.reserved(pool), "taken": taken}
            self.cuda.do("cuMemFreeAsync", at, 0)
            self.cuda.do("cuCtxSynchronize")
            found[str(size)]["after free and sync"] = self.reserved(pool)
            self.cuda.do("cuMemPoolDestroy", pool)
        return found

    def reserved(self, pool: int) -> int:
        value = ctypes.c_uint64()
        self.cuda.do("cuMemPoolGetAttribute", pool, RESERVED, ctypes.byref(value))
        return value.value

    def arrays(self) -> dict[str, Any]:
        """Bytes an array, of many; and what the driver says that it will need."""
        found: dict[str, Any] = {}
        for name, extents in ARRAYS.items():
            desc = box(*extents)
            made: list[int] = []
            taken, _ = self.fall(
                lambda made=made, desc=desc: made.extend(  # type: ignore[misc]
                    self.cuda.get("cuArray3DCreate_v2", desc) for _ in range(MANY)
                )
            )
            for array in made:
                self.cuda.do("cuArrayDestroy", array)
            found[name] = {"taken": taken // MANY, "said": self.array_said(extents)}
        return found

    def array_said(self, extents: tuple[int, ...]) -> int | None:
        deferred = buffer("<QQQiii4x", *extents, *[0] * (3 - len(extents)), 0x20, 4, DEFERRED)
        try:
            array = self.cuda.get("cuArray3DCreate_v2", deferred)
            said = (ctypes.c_uint64 * 8)()
            self.cuda.do("cuArrayGetMemoryRequirements", said, array, 0)
            self.cuda.do("cuArrayDestroy", array)
            return int(said[0])
        except CudaError:
            return None

    def modules(self) -> dict[str, int]:
        """Bytes a module, of many; and one with a variable of 16 MiB."""
        taken, _ = self.fall(lambda: [self.cuda.module() for _ in range(MANY)])
        large, _ = self.fall(lambda: self.cuda.get("cuModuleLoadData", PTX + BIG))
        launched, _ = self.fall(lambda: self.cuda.launch(self.cuda.module()))
        return {"empty": taken // MANY, "16 MiB variable": large, "first launch": launched}

    def graph(self) -> dict[str, int]:
        """A graph that allocates 100 MiB: by its node, its instance, its first launch; and what the device keeps."""
        graph, params = self.cuda.get("cuGraphCreate", 0), allocation_node(100 * MIB)
        node, _ = self.fall(lambda: self.cuda.get("cuGraphAddMemAllocNode", graph, None, 0, params))
        instance, made = self.fall(lambda: self.cuda.get("cuGraphInstantiateWithFlags", graph, 0))
        launch, _ = self.fall(lambda: self.cuda.do("cuGraphLaunch", made, 0))
        kept = ctypes.c_uint64()
        self.cuda.do("cuMemFree_v2", int.from_bytes(params.raw[-8:], "little"))
        self.cuda.do("cuDeviceGetGraphMemAttribute", 0, GRAPH_RESERVED, ctypes.byref(kept))
        self.cuda.do("cuGraphExecDestroy", made)
        self.cuda.do("cuGraphDestroy", graph)
        self.cuda.do("cuDeviceGraphMemTrim", 0)
        return {"node": node, "instance": instance, "launch": launch, "kept": kept.value}

    def limits(self) -> dict[str, Any]:
        """The limits that a context begins with, and what a heap of 256 MiB takes at once and by a launch."""
        found = {name: self.cuda.get("cuCtxGetLimit", which) for name, which in LIMITS.items()}
        size = 256 * MIB
        found["heap of 256 MiB"], _ = self.fall(lambda: self.cuda.do("cuCtxSetLimit", LIMITS["heap"], size))
        found["... by a launch"], _ = self.fall(lambda: self.cuda.launch(self.cuda.module()))
        return found

    def second_context(self) -> dict[str, int]:
        """One that cuCtxCreate makes beside the primary one."""
        primary = self.cuda.get("cuCtxGetCurrent")
        context = self.cuda.get("cuCtxCreate_v2", 0, 0)
        self.cuda.do("cuCtxSetCurrent", primary)
        gained, _ = self.fall(lambda: self.cuda.do("cuCtxDestroy_v2", context))
        return {"second": -gained}


NAMES: Final = ("granularity", "linear", "slab", "handle", "pool", "arrays", "graph", "second_context", "modules",
                "limits")  # fmt: skip
"""In this order: the later ones leave things behind."""


def main() -> None:
    habits, told = Habits(), {}
    for name in NAMES:
        try:
            told[name] = getattr(habits, name)()
        except CudaError as problem:
            told[name] = {"problem": str(problem)}
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
