"""cuda_session.py's commands `alloc BYTES`, `pid` and `end`, with nothing but ctypes.

For Pythons that are older than any of NVIDIA's bindings: it must run on 3.5.
"""

import ctypes
import json
import os
import sys

NAMES = {0: "CUDA_SUCCESS", 2: "CUDA_ERROR_OUT_OF_MEMORY", 100: "CUDA_ERROR_NO_DEVICE"}
CUDA = ctypes.CDLL("libcuda.so.1")


def call(name: str, *arguments: object) -> str:
    """The name of the result."""
    status = int(getattr(CUDA, name)(*arguments))
    return NAMES.get(status, str(status))


def opened() -> str:
    context = ctypes.c_void_p()
    result = call("cuInit", 0)
    if result == NAMES[0]:
        result = call("cuDevicePrimaryCtxRetain", ctypes.byref(context), 0)
    return call("cuCtxSetCurrent", context) if result == NAMES[0] else result


def answer(command: str, *words: str) -> "dict[str, object]":
    if command == "alloc":
        at = ctypes.c_uint64()
        return {"result": call("cuMemAlloc_v2", ctypes.byref(at), ctypes.c_size_t(int(words[0])))}
    return {"pid": os.getpid()}


print(json.dumps({"opened": opened(), "pid": os.getpid()}), flush=True)
for line in sys.stdin:
    if line.strip() == "end":
        break
    print(json.dumps(answer(*line.split())), flush=True)
