"""Texture and surface objects: accepted, kept and told again; refused for what is no texture's memory."""

from __future__ import annotations

import struct

from gpuportion.simgpu import Sim, state
from tests.simgpu.driver import INVALID_VALUE, MIB, OUT, Driver, driver
from tests.simgpu.test_arrays import FLOAT, INVALID_HANDLE, UINT8, box

ARRAY, MIPMAP, LINEAR, PITCH2D = range(4)
SURFACE = 2
FILTER = {"hex": struct.pack("<3iiIIifff4f12i", 1, 1, 1, 1, 2, 16, 1, 0, 0, 4, 0, 0, 0, 0, *[0] * 12).hex()}
PART = {"hex": struct.pack("<i4xQQQ4I16I", 0x20, 64, 64, 0, 0, 0, 0, 0, *[0] * 16).hex()}


def resource(kind: int, content: bytes, flags: int = 0) -> dict[str, str]:
    """A CUDA_RESOURCE_DESC."""
    return {"hex": (struct.pack("<i4x", kind) + content.ljust(128, b"\0") + struct.pack("<I4x", flags)).hex()}


def of_array(array: int, kind: int = ARRAY, flags: int = 0) -> dict[str, str]:
    return resource(kind, struct.pack("<Q", array), flags)


def linear(at: int, size: int, format: int = FLOAT, channels: int = 4) -> dict[str, str]:
    return resource(LINEAR, struct.pack("<QiIQ", at, format, channels, size))


def pitched(at: int, width: int, height: int, pitch: int) -> dict[str, str]:
    return resource(PITCH2D, struct.pack("<QiIQQQ", at, UINT8, 1, width, height, pitch))


def refused(cuda: Driver, *arguments: object) -> int:
    return cuda.call("cuTexObjectCreate", OUT, *arguments)[0]


def test_a_texture_is_told_as_it_was_made(sim: Sim) -> None:
    """Its resource, its filter and its part come back byte for byte, until it's destroyed; it costs nothing."""
    with driver(sim) as cuda:
        cuda.open()
        array = cuda.do("cuArray3DCreate_v2", OUT, box(64, 64))
        before = state.used(sim.state)
        texture = cuda.do("cuTexObjectCreate", OUT, of_array(array), FILTER, PART)
        assert state.used(sim.state) == before
        assert cuda.fill("cuTexObjectGetResourceDesc", 144, texture) == of_array(array)["hex"]
        assert cuda.fill("cuTexObjectGetTextureDesc", 104, texture) == FILTER["hex"]
        assert cuda.fill("cuTexObjectGetResourceViewDesc", 112, texture) == PART["hex"]
        cuda.do("cuTexObjectDestroy", texture)
        assert cuda.call("cuTexObjectDestroy", texture)[0] == INVALID_VALUE
        cuda.do("cuArrayDestroy", array)
        assert refused(cuda, of_array(array), FILTER, 0) == INVALID_HANDLE


def test_textures_are_made_of_linear_memory(sim: Sim) -> None:
    """Aligned, whole elements, and no more than is there; a part is for arrays alone."""
    with driver(sim) as cuda:
        cuda.open()
        block = cuda.alloc(4 * MIB)
        cuda.do("cuTexObjectCreate", OUT, linear(block, 4 * MIB), FILTER, 0)
        cuda.do("cuTexObjectCreate", OUT, pitched(block, 1000, 4096, 1024), FILTER, 0)
        wrong = [
            linear(block, 4 * MIB + 1),
            linear(block + 256, MIB),
            linear(block, MIB, channels=3),
            linear(block, MIB, format=0x33),
            linear(4096, 512),
            pitched(block, 1025, 10, 1024),
            pitched(block, 100, 10, 100),
            pitched(block, 1000, 4097, 1024),
            resource(7, b""),
        ]
        assert [refused(cuda, asked, FILTER, 0) for asked in wrong] == [INVALID_VALUE] * len(wrong)
        assert refused(cuda, linear(block, MIB), FILTER, PART) == INVALID_VALUE
        assert refused(cuda, linear(block, MIB), 0, 0) == INVALID_VALUE
        without_part = cuda.do("cuTexObjectCreate", OUT, linear(block, MIB), FILTER, 0)
        assert cuda.call("cuTexObjectGetResourceViewDesc", PART, without_part)[0] == INVALID_VALUE


def test_a_mipmap_is_a_texture_and_no_surface(sim: Sim) -> None:
    """A surface is an array that was made to be one."""
    with driver(sim) as cuda:
        cuda.open()
        mipmap = cuda.do("cuMipmappedArrayCreate", OUT, box(64, 64), 3)
        cuda.do("cuTexObjectCreate", OUT, of_array(mipmap, MIPMAP), FILTER, 0)
        assert refused(cuda, of_array(mipmap, ARRAY), FILTER, 0) == INVALID_HANDLE
        plain = cuda.do("cuArray3DCreate_v2", OUT, box(64, 64))
        array = cuda.do("cuArray3DCreate_v2", OUT, box(64, 64, flags=SURFACE))
        for kind in (of_array(plain), of_array(mipmap, MIPMAP), of_array(array, flags=1)):
            assert cuda.call("cuSurfObjectCreate", OUT, kind)[0] == INVALID_VALUE
        surface = cuda.do("cuSurfObjectCreate", OUT, of_array(array))
        assert cuda.fill("cuSurfObjectGetResourceDesc", 144, surface) == of_array(array)["hex"]
        assert cuda.call("cuTexObjectDestroy", surface)[0] == INVALID_VALUE
        cuda.do("cuSurfObjectDestroy", surface)


def test_a_texture_belongs_to_its_context(sim: Sim) -> None:
    """In another one it is unknown."""
    with driver(sim) as cuda:
        cuda.open()
        texture = cuda.do("cuTexObjectCreate", OUT, linear(cuda.alloc(MIB), MIB), FILTER, 0)
        cuda.do("cuCtxCreate_v2", OUT, 0, 0)
        assert cuda.call("cuTexObjectDestroy", texture)[0] == INVALID_VALUE
        cuda.do("cuCtxPopCurrent_v2", OUT)
        cuda.do("cuTexObjectDestroy", texture)
