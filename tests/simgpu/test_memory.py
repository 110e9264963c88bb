"""What memory costs, as the state's own reader sees it, and when it is free again."""

from __future__ import annotations

import itertools

import pytest

from gpuportion.simgpu import Sim, state
from gpuportion.simgpu.costs import DEFAULTS
from tests.simgpu.conftest import Start
from tests.simgpu.driver import (
    INVALID_VALUE,
    MIB,
    OUT,
    OUT_OF_MEMORY,
    SUCCESS,
    driver,
    pool_properties,
    properties,
)

CONTEXT = DEFAULTS["context"]


def test_a_context_costs_memory_until_it_is_released(sim: Sim) -> None:
    """The primary context is charged once, however often it is retained."""
    with driver(sim) as cuda:
        cuda.do("cuInit", 0)
        assert state.used(sim.state) == 0
        for _ in range(2):
            cuda.do("cuDevicePrimaryCtxRetain", OUT, 0)
            assert state.used(sim.state) == CONTEXT
        cuda.do("cuDevicePrimaryCtxRelease_v2", 0)
        assert state.used(sim.state) == CONTEXT
        cuda.do("cuDevicePrimaryCtxRelease_v2", 0)
        assert state.used(sim.state) == 0


@pytest.mark.parametrize(
    ("create", "arguments"),
    [
        ("cuCtxCreate", (0, 0)),
        ("cuCtxCreate_v2", (0, 0)),
        ("cuCtxCreate_v3", (0, 0, 0, 0)),
        ("cuCtxCreate_v4", (0, 0, 0)),
    ],
)
def test_a_context_takes_its_memory_with_it(sim: Sim, create: str, arguments: tuple[int, ...]) -> None:
    """Blocks, slabs and modules of a destroyed context are free, by every ABI of its creation."""
    with driver(sim) as cuda:
        cuda.do("cuInit", 0)
        context = cuda.do(create, OUT, *arguments)
        cuda.alloc(100 * MIB)
        cuda.alloc(4096)
        cuda.do("cuModuleLoadData", OUT, ".version 8.0")
        slab, module = DEFAULTS["slab"], DEFAULTS["module"]
        assert state.used(sim.state) == CONTEXT + 100 * MIB + slab + module
        cuda.do("cuCtxDestroy_v2", context)
        assert state.used(sim.state) == 0


@pytest.mark.parametrize("granularity", [65536, 512 * 1024, 2 * MIB, 4 * MIB])
def test_a_large_block_costs_whole_granules(start: Start, granularity: int) -> None:
    """Charged in multiples of the granularity, given back in full."""
    sim = start(costs={"granularity": granularity})
    with driver(sim) as cuda:
        cuda.open()
        pointer = cuda.alloc(5 * MIB + 1)
        assert state.used(sim.state) == CONTEXT + (5 * MIB // granularity + 1) * granularity
        cuda.free(pointer)
        assert state.used(sim.state) == CONTEXT


def test_small_blocks_share_slabs(sim: Sim) -> None:
    """A slab is charged for the first small block and free with the last one."""
    with driver(sim) as cuda:
        cuda.open()
        blocks = [cuda.alloc(256 * 1024) for _ in range(8)]
        assert state.used(sim.state) == CONTEXT + DEFAULTS["slab"]
        blocks.append(cuda.alloc(1))
        assert state.used(sim.state) == CONTEXT + 2 * DEFAULTS["slab"]
        for block in blocks[:8]:
            cuda.free(block)
        assert state.used(sim.state) == CONTEXT + DEFAULTS["slab"]
        cuda.free(blocks[8])
        assert state.used(sim.state) == CONTEXT


def test_small_blocks_do_not_overlap(sim: Sim) -> None:
    """Blocks of mixed sizes are apart and hold what was written, through holes left by freed ones."""
    with driver(sim) as cuda:
        cuda.open()
        sizes = [1, 512, 513, 4096, 100_000, 1 << 20]
        blocks = [(cuda.alloc(size), size) for size in sizes * 4]
        for pointer, _ in blocks[::3]:
            cuda.free(pointer)
        kept = [block for i, block in enumerate(blocks) if i % 3]
        kept += [(cuda.alloc(size), size) for size in sizes]
        ranges = sorted((pointer, pointer + size) for pointer, size in kept)
        assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(ranges))
        assert all(pointer % 256 == 0 for pointer, _ in kept)


def test_a_pitched_block_costs_its_pitch(sim: Sim) -> None:
    """The pitch is the driver's choice, and what is charged follows it."""
    with driver(sim) as cuda:
        cuda.open()
        result, _, pitch = cuda.call("cuMemAllocPitch_v2", OUT, OUT, 1000, 10_000, 4)
        assert (result, pitch) == (SUCCESS, 1024)
        assert state.used(sim.state) == CONTEXT + 10 * MIB


def test_beyond_the_device_is_out_of_memory(sim: Sim) -> None:
    """The call fails with exactly that, nothing is charged, and the process goes on."""
    with driver(sim) as cuda:
        cuda.open()
        free, total = cuda.info()
        before = state.used(sim.state)
        for size in (free + 1, total, 1 << 47, (1 << 64) - 1):
            assert cuda.call("cuMemAlloc_v2", OUT, size)[0] == OUT_OF_MEMORY
        assert state.used(sim.state) == before
        cuda.free(cuda.alloc(free // (2 * MIB) * (2 * MIB)))


def test_a_pool_takes_chunks_and_settles_when_waited_for(sim: Sim) -> None:
    """Freed pool memory stays with the pool until a synchronisation, and then above the threshold only."""
    chunk = DEFAULTS["pool_chunk"]
    with driver(sim) as cuda:
        cuda.open()
        stream = cuda.do("cuStreamCreate", OUT, 1)
        first = cuda.do("cuMemAllocAsync", OUT, 1000, stream)
        assert state.used(sim.state) == CONTEXT + chunk
        second = cuda.do("cuMemAllocAsync_ptsz", OUT, chunk, stream)
        assert state.used(sim.state) == CONTEXT + 2 * chunk
        cuda.do("cuMemFreeAsync", second, stream)
        assert state.used(sim.state) == CONTEXT + 2 * chunk
        cuda.do("cuStreamSynchronize", stream)
        assert state.used(sim.state) == CONTEXT + chunk
        pool = cuda.do("cuDeviceGetMemPool", OUT, 0)
        cuda.do("cuMemPoolSetAttribute", pool, 4, {"hex": "ff" * 8})
        cuda.do("cuMemFree_v2", first)
        cuda.do("cuCtxSynchronize")
        assert state.used(sim.state) == CONTEXT + chunk
        cuda.do("cuMemPoolTrimTo", pool, 0)
        assert state.used(sim.state) == CONTEXT


def test_a_pool_of_its_own_has_a_limit_and_ends(sim: Sim) -> None:
    """maxSize is kept, a pool of the host costs the device nothing, destruction waits for the last block."""
    with driver(sim) as cuda:
        cuda.open()
        pool = cuda.do("cuMemPoolCreate", OUT, pool_properties(max_size=64 * MIB))
        block = cuda.do("cuMemAllocFromPoolAsync", OUT, 60 * MIB, pool, 0)
        assert cuda.call("cuMemAllocFromPoolAsync", OUT, 5 * MIB, pool, 0)[0] == OUT_OF_MEMORY
        cuda.do("cuMemPoolDestroy", pool)
        assert state.used(sim.state) == CONTEXT + 64 * MIB
        cuda.do("cuMemFreeAsync", block, 0)
        assert state.used(sim.state) == CONTEXT
        host = cuda.do("cuMemPoolCreate", OUT, pool_properties(place=2))
        cuda.do("cuMemAllocFromPoolAsync", OUT, 60 * MIB, host, 0)
        assert state.used(sim.state) == CONTEXT


def test_host_and_managed_memory_cost_the_device_nothing(sim: Sim) -> None:
    """Neither is device memory before it is used there."""
    with driver(sim) as cuda:
        cuda.open()
        host = cuda.do("cuMemHostAlloc", OUT, 100 * MIB, 0)
        managed = cuda.do("cuMemAllocManaged", OUT, 100 * MIB, 1)
        assert state.used(sim.state) == CONTEXT
        cuda.do("cuMemFreeHost", host)
        cuda.free(managed)


@pytest.mark.parametrize("unmap_first", [True, False])
def test_virtual_memory_lives_until_handle_and_mapping_are_gone(sim: Sim, unmap_first: bool) -> None:
    """In either order; a retained handle counts too."""
    with driver(sim) as cuda:
        cuda.open()
        handle = cuda.create(20 * MIB)
        at = cuda.map(handle, 20 * MIB)
        assert cuda.do("cuMemRetainAllocationHandle", OUT, at + MIB) == handle
        last = [("cuMemUnmap", [at, 20 * MIB]), ("cuMemRelease", [handle]), ("cuMemRelease", [handle])]
        for name, arguments in last if unmap_first else reversed(last):
            assert state.used(sim.state) == CONTEXT + 20 * MIB
            cuda.do(name, *arguments)
        assert state.used(sim.state) == CONTEXT
        cuda.do("cuMemAddressFree", at, 20 * MIB)


def test_virtual_memory_of_the_host_costs_the_device_nothing(sim: Sim) -> None:
    """The location decides, not the current context."""
    with driver(sim) as cuda:
        cuda.open()
        cuda.do("cuMemCreate", OUT, 20 * MIB, properties(place=2), 0)
        assert state.used(sim.state) == CONTEXT


def test_wrong_frees_are_refused(sim: Sim) -> None:
    """An address inside a block, one freed before, one of another kind: an error, and nothing changes."""
    with driver(sim) as cuda:
        cuda.open()
        large, small = cuda.alloc(8 * MIB), cuda.alloc(4096)
        host = cuda.do("cuMemHostAlloc", OUT, 4096, 0)
        before = state.used(sim.state)
        for wrong in (large + 512, small + 512, host, 12345, large + 4 * MIB):
            assert cuda.call("cuMemFree_v2", wrong)[0] == INVALID_VALUE
        assert state.used(sim.state) == before
        cuda.free(large)
        cuda.free(small)
        assert cuda.call("cuMemFree_v2", large)[0] == INVALID_VALUE
        assert cuda.call("cuMemFree_v2", small)[0] == INVALID_VALUE
        assert cuda.call("cuMemFree_v2", 0)[0] == SUCCESS


def test_a_module_costs_memory_until_it_is_unloaded(sim: Sim) -> None:
    """A library costs it in each context that uses it, and only from then on."""
    with driver(sim) as cuda:
        cuda.open()
        module = cuda.do("cuModuleLoadData", OUT, ".version 8.0\n.visible .entry add()")
        assert state.used(sim.state) == CONTEXT + DEFAULTS["module"]
        assert cuda.call("cuModuleGetFunction", OUT, module, "ad")[0] == 500
        cuda.do("cuModuleGetFunction", OUT, module, "add")
        cuda.do("cuModuleUnload", module)
        library = cuda.do("cuLibraryLoadData", OUT, ".version 8.0\n.entry add()", 0, 0, 0, 0, 0, 0)
        kernel = cuda.do("cuLibraryGetKernel", OUT, library, "add")
        assert state.used(sim.state) == CONTEXT
        function = cuda.do("cuKernelGetFunction", OUT, kernel)
        assert state.used(sim.state) == CONTEXT + DEFAULTS["module"]
        cuda.do("cuLaunchKernel", function, 1, 1, 1, 32, 1, 1, 0, 0, 0, 0)
        cuda.do("cuLibraryUnload", library)
        assert state.used(sim.state) == CONTEXT
        assert cuda.call("cuModuleLoadData", OUT, "no image")[0] == 200


def test_a_kernel_brings_its_module_into_the_context_that_runs_it(sim: Sim) -> None:
    """A kernel of a library can be launched as it is, without a function in any context."""
    with driver(sim) as cuda:
        cuda.open()
        library = cuda.do("cuLibraryLoadData", OUT, ".version 8.0\n.entry add()", 0, 0, 0, 0, 0, 0)
        kernel = cuda.do("cuLibraryGetKernel", OUT, library, "add")
        for _ in range(2):
            cuda.do("cuLaunchKernel", kernel, 1, 1, 1, 32, 1, 1, 0, 0, 0, 0)
            assert state.used(sim.state) == CONTEXT + DEFAULTS["module"]
        cuda.do("cuLibraryUnload", library)
        assert state.used(sim.state) == CONTEXT


def test_a_fat_binary_is_no_text(sim: Sim) -> None:
    """Its first byte is a letter, as a text's is; so is its wrapper's taken, which names where it lies."""
    with driver(sim) as cuda:
        cuda.open()
        cuda.do("cuModuleLoadData", OUT, {"hex": "50ed55ba" + "00" * 60})
        cuda.do("cuModuleLoadData", OUT, {"hex": "b1436246" + "00" * 20})
        assert cuda.call("cuModuleLoadData", OUT, {"hex": "50ed55bb" + "00" * 60})[0] == 200
