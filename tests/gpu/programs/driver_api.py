"""The driver API for the suite's programs: by ctypes, as any client loads it, with nothing but Python beside it."""

from __future__ import annotations

import ctypes
import struct
from typing import Any, Final

OUT_OF_MEMORY: Final = 2
MIB: Final = 1 << 20
PTX: Final = b""".version 7.0
.target sm_70
.address_size 64
.visible .entry nothing() { ret; }
"""


class CudaError(Exception):
    def __init__(self, name: str, result: int) -> None:
        super().__init__(f"{name} answers {result}")
        self.result = result


class Cuda:
    """A driver. Calls raise CudaError unless they succeed."""

    def __init__(self, library: str = "libcuda.so.1") -> None:
        self._library = ctypes.CDLL(library)

    def result(self, name: str, *args: Any) -> int:
        """What a call answers. Integers are passed in 64 bits, structures as bytes that are written back."""
        function = getattr(self._library, name)
        return int(function(*[ctypes.c_uint64(arg) if isinstance(arg, int) else arg for arg in args]))

    def do(self, name: str, *args: Any) -> None:
        if result := self.result(name, *args):
            raise CudaError(name, result)

    def get(self, name: str, *args: Any) -> int:
        """What a call puts where its first argument points to."""
        out = ctypes.c_uint64(0)
        self.do(name, ctypes.byref(out), *args)
        return out.value

    def begin(self) -> Cuda:
        """The first device's primary context, current."""
        self.do("cuInit", 0)
        self.do("cuCtxSetCurrent", self.get("cuDevicePrimaryCtxRetain", 0))
        return self

    def info(self) -> tuple[int, int]:
        """(free, total), bytes."""
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self.do("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
        return free.value, total.value

    def attribute(self, which: int) -> int:
        value = ctypes.c_int()
        self.do("cuDeviceGetAttribute", ctypes.byref(value), which, 0)
        return value.value

    def module(self) -> int:
        """The function of an empty kernel."""
        module = self.get("cuModuleLoadData", PTX)
        return self.get("cuModuleGetFunction", module, b"nothing")

    def launch(self, function: int, stream: int = 0) -> None:
        self.do("cuLaunchKernel", function, 1, 1, 1, 1, 1, 1, 0, stream, None, None)


def buffer(layout: str, *values: int) -> Any:
    """A structure."""
    packed = struct.pack(layout, *values)
    return ctypes.create_string_buffer(packed, len(packed))


def vmm_properties(*, exportable: bool = False) -> Any:
    """CUmemAllocationProp of the first device."""
    return buffer("<iiiiQ8x", 1, int(exportable), 1, 0, 0)


def pool_properties() -> Any:
    """CUmemPoolProps of the first device."""
    return buffer("<iiiiQQ56x", 1, 0, 1, 0, 0, 0)


def allocation_node(size: int) -> Any:
    """CUDA_MEM_ALLOC_NODE_PARAMS of the first device."""
    return buffer("<iiiiQQ56xQQQQ", 1, 0, 1, 0, 0, 0, 0, 0, size, 0)


def box(width: int, height: int, depth: int = 0) -> Any:
    """CUDA_ARRAY3D_DESCRIPTOR of four floats a texel."""
    return buffer("<QQQiii4x", width, height, depth, 0x20, 4, 0)
