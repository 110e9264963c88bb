"""Arrays and mipmapped arrays, and the interface of before CUDA 3.2, whose addresses have 32 bits."""

from __future__ import annotations

import struct

import pytest

from gpuportion.simgpu import Sim, state
from gpuportion.simgpu.costs import DEFAULTS
from tests.simgpu.conftest import Start
from tests.simgpu.driver import INVALID_VALUE, MIB, OUT, OUT_OF_MEMORY, driver

CONTEXT = DEFAULTS["context"]
PAGE = DEFAULTS["array"]
INVALID_HANDLE = 400
UINT8, FLOAT, BC1, BC7, NV12, Y416 = 0x01, 0x20, 0x91, 0x9D, 0xB0, 0xB1
LAYERED, SPARSE, DEFERRED = 1, 0x40, 0x80


def box(
    width: int, height: int = 0, depth: int = 0, *, format: int = FLOAT, channels: int = 4, flags: int = 0
) -> dict[str, str]:
    """A CUDA_ARRAY3D_DESCRIPTOR."""
    return {"hex": struct.pack("<QQQiII4x", width, height, depth, format, channels, flags).hex()}


def pages(size: int) -> int:
    return -(-size // PAGE) * PAGE


@pytest.mark.parametrize(
    ("descriptor", "size"),
    [
        (box(1024), 1024 * 16),
        (box(1, 1), 512),
        (box(1000, 1000), 16384 * 1008),
        (box(256, 256, 10), 4096 * 256 * 10),
        (box(256, 0, 7, flags=LAYERED), 4096 * 7),
        (box(1000, 1000, format=UINT8, channels=1), 1024 * 1008),
        (box(1024, 1024, format=BC1), 2048 * 256),
        (box(1024, 1024, format=BC7), 4096 * 256),
        (box(1920, 1080, format=NV12, channels=3), 2048 * 1088 + 2048 * 544),
        (box(1024, 1024, format=Y416), 8192 * 1024),
    ],
)
def test_an_array_costs_its_padded_size(sim: Sim, descriptor: dict[str, str], size: int) -> None:
    """Rows of 512 bytes, planes of 16 rows, whole pages of 64 KiB; blocks and planes by their format."""
    with driver(sim) as cuda:
        cuda.open()
        array = cuda.do("cuArray3DCreate_v2", OUT, descriptor)
        assert state.used(sim.state) == CONTEXT + pages(size)
        cuda.do("cuArrayDestroy", array)
        assert state.used(sim.state) == CONTEXT
        assert cuda.call("cuArrayDestroy", array)[0] == INVALID_HANDLE


def test_padding_is_a_setting(start: Start) -> None:
    """A driver of other habits: no padding of rows, pages of 1 MiB."""
    sim = start(costs={"array": MIB, "array_row": 64, "array_rows": 1})
    with driver(sim) as cuda:
        cuda.open()
        cuda.do("cuArray3DCreate_v2", OUT, box(1000, 1000))
        assert state.used(sim.state) == CONTEXT + 16 * MIB


@pytest.mark.parametrize("flags", [SPARSE, DEFERRED])
def test_an_array_whose_memory_comes_later_costs_nothing(sim: Sim, flags: int) -> None:
    """And says, if it is deferred, how much that will be."""
    with driver(sim) as cuda:
        cuda.open()
        array = cuda.do("cuArray3DCreate_v2", OUT, box(1000, 1000, flags=flags))
        assert state.used(sim.state) == CONTEXT
        result, size, _, _, _ = cuda.call("cuArrayGetMemoryRequirements", {"out": 4}, array, 0)
        expected = (0, pages(16384 * 1008)) if flags == DEFERRED else (INVALID_VALUE, 0)
        assert (result, size) == expected


def test_a_mipmap_costs_all_of_its_levels(sim: Sim) -> None:
    """Its level arrays own nothing, and go with it; the volume's third dimension shrinks too."""
    with driver(sim) as cuda:
        cuda.open()
        mipmap = cuda.do("cuMipmappedArrayCreate", OUT, box(1024, 1024), 3)
        assert state.used(sim.state) == CONTEXT + (16 + 4 + 1) * MIB
        level = cuda.do("cuMipmappedArrayGetLevel", OUT, mipmap, 2)
        result, width, height, _ = cuda.call("cuArrayGetDescriptor_v2", {"out": 3}, level)
        assert (result, width, height) == (0, 256, 256)
        assert cuda.call("cuMipmappedArrayGetLevel", OUT, mipmap, 3)[0] == INVALID_VALUE
        assert cuda.call("cuArrayDestroy", level)[0] == INVALID_VALUE
        cuda.do("cuMipmappedArrayDestroy", mipmap)
        assert cuda.call("cuArrayDestroy", level)[0] == INVALID_HANDLE
        cuda.do("cuMipmappedArrayCreate", OUT, box(256, 256, 256), 2)
        assert state.used(sim.state) == CONTEXT + (256 + 32) * MIB


def test_arrays_beyond_the_device_are_out_of_memory(sim: Sim) -> None:
    """However absurd their extents; and those of no format are wrong."""
    with driver(sim) as cuda:
        cuda.open()
        for wide in (1 << 20, 1 << 40, (1 << 64) - 1):
            assert cuda.call("cuArray3DCreate_v2", OUT, box(wide, 1 << 20))[0] == OUT_OF_MEMORY
        assert cuda.call("cuMipmappedArrayCreate", OUT, box(1 << 40, 1 << 40), 4)[0] == OUT_OF_MEMORY
        for wrong in (box(0), box(4, 4, format=0x77), box(4, 4, channels=3)):
            assert cuda.call("cuArray3DCreate_v2", OUT, wrong)[0] == INVALID_VALUE
        assert state.used(sim.state) == CONTEXT


def test_an_array_goes_with_its_context(sim: Sim) -> None:
    """And its handle is told apart from what has its memory since."""
    with driver(sim) as cuda:
        cuda.do("cuInit", 0)
        context = cuda.do("cuCtxCreate_v2", OUT, 0, 0)
        array = cuda.do("cuArray3DCreate_v2", OUT, box(1000, 1000))
        cuda.do("cuCtxDestroy_v2", context)
        assert state.used(sim.state) == 0
        assert cuda.call("cuArrayDestroy", array)[0] == INVALID_HANDLE


def test_what_is_copied_into_an_array_comes_out_of_it(sim: Sim) -> None:
    """By bytes and by boxes; beyond its end is refused."""
    with driver(sim) as cuda:
        cuda.open()
        array = cuda.do("cuArray3DCreate_v2", OUT, box(64, 4, format=UINT8, channels=1))
        back = cuda.do("cuMemHostAlloc", OUT, 4096, 0)
        cuda.do("cuMemsetD8_v2", back, 7, 256)
        cuda.do("cuMemcpyHtoA_v2", array, 64, back, 128)
        to_host = struct.pack("<QQI4xQQQQ", 0, 1, 3, 0, 0, array, 0) + struct.pack(
            "<QQI4xQQQQQQ", 0, 0, 1, back + 1024, 0, 0, 64, 64, 3
        )
        cuda.do("cuMemcpy2D_v2", {"hex": to_host.hex()})
        assert cuda.read(back + 1024, 192) == b"\7" * 128 + b"\0" * 64
        assert cuda.call("cuMemcpyHtoA_v2", array, 200, back, 128)[0] == INVALID_VALUE


def test_the_first_interface_has_addresses_of_32_bits(sim: Sim) -> None:
    """Its memory costs as other memory does, and either interface can use and free it."""
    with driver(sim) as cuda:
        cuda.open()
        first = cuda.do("cuMemAlloc", {"out32": 1}, 5 * MIB)
        assert 0 < first < 1 << 32
        assert state.used(sim.state) == CONTEXT + 6 * MIB
        result, second, pitch = cuda.call("cuMemAllocPitch", {"out32": 1}, {"out32": 1}, 1000, 1000, 4)
        assert (result, pitch) == (0, 1024)
        assert not first < second + MIB < first + 6 * MIB
        assert cuda.call("cuMemGetAddressRange", {"out32": 1}, {"out32": 1}, first + 100) == (
            0,
            first,
            5 * MIB,
        )
        back = cuda.do("cuMemHostAlloc", OUT, 4096, 0)
        cuda.do("cuMemsetD32", first + 4, 0x01020304, 2)
        cuda.do("cuMemcpyDtoH", back, first, 12)
        assert cuda.read(back, 12) == b"\0\0\0\0\4\3\2\1\4\3\2\1"
        cuda.do("cuMemFree", first)
        cuda.free(second)
        assert state.used(sim.state) == CONTEXT


def test_the_first_interface_runs_out_of_addresses(sim: Sim) -> None:
    """Of 4 GiB no more than 3: then it is out of memory, whatever the device still has."""
    with driver(sim) as cuda:
        cuda.open()
        taken = 0
        while (answer := cuda.call("cuMemAlloc", {"out32": 1}, 512 * MIB))[0] == 0:
            taken += 512 * MIB
            assert answer[1] + 512 * MIB <= 1 << 32
        assert answer[0] == OUT_OF_MEMORY
        assert state.used(sim.state) == CONTEXT + taken
        cuda.alloc(512 * MIB)
