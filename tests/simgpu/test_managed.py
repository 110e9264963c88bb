"""Managed memory: when it takes device memory, and when it gives way."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from gpuportion.simgpu import Sim, state
from gpuportion.simgpu.costs import DEFAULTS
from tests.simgpu.conftest import Start
from tests.simgpu.driver import INVALID_VALUE, MIB, OUT, OUT_OF_MEMORY, Driver, driver

CONTEXT = DEFAULTS["context"]
ON_HOST = 0xFFFFFFFF
GIB = 1024 * MIB


def launch(cuda: Driver) -> None:
    module = cuda.do("cuModuleLoadData", OUT, ".version 8.0\n.visible .entry add()")
    cuda.do("cuLaunchKernel", cuda.do("cuModuleGetFunction", OUT, module, "add"), 1, 1, 1, 32, 1, 1, *[0] * 4)


@pytest.mark.parametrize(
    "how", ["copy to", "copy from", "fill", "prefetch", "prefetch v2", "batch", "launch"]
)
def test_managed_memory_takes_the_device_when_it_is_used_there(sim: Sim, how: str) -> None:
    """Nothing before; then whole granules, once; nothing again when it is back on the host."""
    with driver(sim) as cuda:
        cuda.open()
        managed = cuda.do("cuMemAllocManaged", OUT, 9 * MIB, 1)
        host = cuda.do("cuMemHostAlloc", OUT, 4096, 0)
        assert state.used(sim.state) == CONTEXT
        on_device = 1  # a CUmemLocation {DEVICE, 0}, as it is passed by value
        batch = [{"hex": struct.pack("<Q", n).hex()} for n in (managed, 9 * MIB)]
        use: dict[str, tuple[Any, ...]] = {
            "copy to": ("cuMemcpyHtoD_v2", managed, host, 8),
            "copy from": ("cuMemcpyDtoH_v2", host, managed, 8),
            "fill": ("cuMemsetD8_v2", managed + 100, 1, 8),
            "prefetch": ("cuMemPrefetchAsync", managed, 9 * MIB, 0, 0),
            "prefetch v2": ("cuMemPrefetchAsync_v2", managed, 9 * MIB, on_device, 0, 0),
            "batch": (
                "cuMemPrefetchBatchAsync",
                *batch,
                1,
                {"hex": struct.pack("<ii", 1, 0).hex()},
                {"hex": "00" * 8},
                1,
                0,
                0,
            ),
        }
        for _ in range(2):
            launch(cuda) if how == "launch" else cuda.do(*use[how])
        module = 2 * DEFAULTS["module"] if how == "launch" else 0
        assert state.used(sim.state) == CONTEXT + 10 * MIB + module
        cuda.do("cuMemPrefetchAsync", managed, 9 * MIB, ON_HOST, 0)
        assert state.used(sim.state) == CONTEXT + module
        cuda.do("cuMemPrefetchAsync", managed, 9 * MIB, 0, 0)
        cuda.free(managed)
        assert state.used(sim.state) == CONTEXT + module


def test_resident_memory_gives_way(start: Start) -> None:
    """To allocations of its process, and to other managed memory: the longest there goes first."""
    sim = start("t4-16gb")
    with driver(sim) as cuda:
        cuda.open()
        blocks = [cuda.do("cuMemAllocManaged", OUT, 5 * GIB, 1) for _ in range(3)]
        for block in blocks[:2]:
            cuda.do("cuMemPrefetchAsync", block, 5 * GIB, 0, 0)
        assert state.used(sim.state) == CONTEXT + 10 * GIB
        cuda.do("cuMemPrefetchAsync", blocks[2], 5 * GIB, 0, 0)
        assert state.used(sim.state) == CONTEXT + 10 * GIB
        cuda.alloc(9 * GIB)
        assert state.used(sim.state) == CONTEXT + 14 * GIB
        cuda.alloc(5 * GIB)
        assert state.used(sim.state) == CONTEXT + 14 * GIB
        assert cuda.call("cuMemAlloc_v2", OUT, 5 * GIB)[0] == OUT_OF_MEMORY


def test_more_than_the_device_has_is_resident_in_part(start: Start) -> None:
    """Oversubscription is no error, neither at the allocation nor at the use."""
    sim = start("t4-16gb")
    with driver(sim) as cuda:
        cuda.open()
        managed = cuda.do("cuMemAllocManaged", OUT, 40 * GIB, 1)
        cuda.do("cuMemPrefetchAsync", managed, 40 * GIB, 0, 0)
        assert cuda.info()[0] < 2 * MIB
        cuda.alloc(GIB)
        assert state.used(sim.state) == CONTEXT + GIB


def test_managed_memory_moves_between_devices(start: Start) -> None:
    """It is in one place at a time, and goes with its context."""
    sim = start("t4-16gb:2")
    with driver(sim) as cuda:
        cuda.open(0)
        managed = cuda.do("cuMemAllocManaged", OUT, 8 * MIB, 1)
        cuda.do("cuMemPrefetchAsync", managed, 8 * MIB, 0, 0)
        cuda.do("cuMemPrefetchAsync", managed, 8 * MIB, 1, 0)
        assert [state.used(sim.state, i) for i in (0, 1)] == [CONTEXT, 8 * MIB]
        cuda.do("cuDevicePrimaryCtxReset_v2", 0)
        assert [state.used(sim.state, i) for i in (0, 1)] == [0, 0]


def test_a_range_says_what_it_was_advised(sim: Sim) -> None:
    """Preferred place, read-mostly, last prefetch; and other memory is no managed range."""
    with driver(sim) as cuda:
        cuda.open()
        managed = cuda.do("cuMemAllocManaged", OUT, 8 * MIB, 1)

        def attributes() -> list[int]:
            return [
                cuda.call("cuMemRangeGetAttribute", {"out32": 1}, 4, which, managed, MIB)[1]
                for which in (1, 2, 4)
            ]

        nowhere = 0xFFFFFFFE
        assert attributes() == [0, nowhere, nowhere]
        cuda.do("cuMemAdvise", managed, MIB, 1, 0)
        cuda.do("cuMemAdvise", managed, MIB, 3, 0)
        cuda.do("cuMemPrefetchAsync", managed, MIB, ON_HOST, 0)
        assert attributes() == [1, 0, ON_HOST]
        assert cuda.call("cuMemPrefetchAsync", cuda.alloc(MIB), MIB, 0, 0)[0] == INVALID_VALUE
        assert cuda.call("cuMemPrefetchAsync", managed, 9 * MIB, 0, 0)[0] == INVALID_VALUE
