"""One side of memory that two processes share; a line of JSON a step, and a line of standard input to go on.

sharing.py export            takes 256 MiB by cuMemAlloc and by cuMemCreate; says how to import them
sharing.py import HEX PID FD opens both
sharing.py reset             a pool of its own, the primary context reset, and the old pool asked again
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[3]))

from tests.gpu.programs.driver_api import MIB, Cuda, CudaError, buffer, pool_properties, vmm_properties

SIZE = 256 * MIB
PIDFD_GETFD = 438
RESERVED = 5


class Handle(ctypes.Structure):
    """CUipcMemHandle, which is passed by value."""

    _fields_ = (("bytes", ctypes.c_ubyte * 64),)


def say(**facts: object) -> None:
    print(json.dumps(facts), flush=True)
    sys.stdin.readline()


def export(cuda: Cuda) -> None:
    at = cuda.get("cuMemAlloc_v2", SIZE)
    handle, fd = Handle(), ctypes.c_int(-1)
    cuda.do("cuIpcGetMemHandle", ctypes.byref(handle), at)
    memory = cuda.get("cuMemCreate", SIZE, vmm_properties(exportable=True), 0)
    cuda.do("cuMemExportToShareableHandle", ctypes.byref(fd), memory, 1, 0)
    say(ipc=bytes(handle.bytes).hex(), fd=fd.value)


def take(cuda: Cuda, ipc: str, pid: str, fd: str) -> None:
    """Each step is looked at from outside."""
    say(step="begun")
    at = ctypes.c_uint64()
    handle = Handle.from_buffer_copy(bytes.fromhex(ipc))
    result = cuda.result("cuIpcOpenMemHandle_v2", ctypes.byref(at), handle, 1)
    say(step="ipc", result=result)
    libc = ctypes.CDLL(None, use_errno=True)
    own = libc.syscall(PIDFD_GETFD, os.pidfd_open(int(pid)), int(fd), 0)
    memory = ctypes.c_uint64()
    result = cuda.result("cuMemImportFromShareableHandle", ctypes.byref(memory), ctypes.c_void_p(own), 1)
    if not result:
        where = cuda.get("cuMemAddressReserve", SIZE, 0, 0, 0)
        cuda.do("cuMemMap", where, SIZE, 0, memory.value, 0)
        cuda.do("cuMemSetAccess", where, SIZE, buffer("<iii", 1, 0, 3), 1)
    say(step="handle", result=result)


def reset(cuda: Cuda) -> None:
    """Whether a pool outlives its context, and what asking a pool that doesn't answers."""
    pool = cuda.get("cuMemPoolCreate", pool_properties())
    default = cuda.get("cuDeviceGetDefaultMemPool", 0)
    for name in (pool, default):
        cuda.get("cuMemAllocFromPoolAsync", 64 * MIB, name, 0)
    cuda.do("cuCtxSynchronize")
    cuda.do("cuDevicePrimaryCtxReset_v2", 0)
    say(step="reset")
    value = ctypes.c_uint64()
    answers: dict[str, list[int]] = {}
    for which, each in (("own", pool), ("default", default)):
        result = cuda.result("cuMemPoolGetAttribute", each, RESERVED, ctypes.byref(value))
        answers[which] = [result, value.value]
    again = cuda.get("cuDeviceGetDefaultMemPool", 0)
    say(step="asked", answers=answers, same_default=again == default)
    try:
        cuda.begin()
        cuda.get("cuMemAllocFromPoolAsync", MIB, pool, 0)
        say(step="used again", result=0)
    except CudaError as refusal:
        say(step="used again", result=refusal.result)


def main() -> None:
    cuda = Cuda().begin()
    if sys.argv[1] == "export":
        export(cuda)
    elif sys.argv[1] == "reset":
        reset(cuda)
    else:
        take(cuda, *sys.argv[2:])


if __name__ == "__main__":
    main()
