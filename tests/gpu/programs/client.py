"""A framework at work in a grant: it computes something, and asks for more than there is. One line of JSON.

client.py NAME
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from typing import Any, Final

MIB: Final = 1 << 20


def cupy(size: int) -> tuple[float, Callable[[], object]]:
    cp: Any = importlib.import_module("cupy")
    total = float((cp.ones(1000, dtype=cp.float32) * 2).sum())
    return total, lambda: cp.empty(size, dtype=cp.uint8)


def jax(size: int) -> tuple[float, Callable[[], object]]:
    """Without its habit of taking three quarters of what it sees at once."""
    import os

    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    library: Any = importlib.import_module("jax")
    jnp: Any = importlib.import_module("jax.numpy")
    assert library.devices()[0].platform == "gpu", "it runs on the CPU"
    total = float((jnp.ones(1000, dtype=jnp.float32) * 2).sum())
    return total, lambda: jnp.zeros(size, dtype=jnp.uint8).block_until_ready()


def triton(size: int) -> tuple[float, Callable[[], object]]:
    """A kernel from a file: Triton reads its source."""
    torch: Any = importlib.import_module("torch")
    kernel: Any = importlib.import_module("double_kernel")
    x = torch.ones(1000, device="cuda")
    kernel.double[(1,)](x, 1000, BLOCK=1024)
    return float(x.sum().cpu()), lambda: torch.empty(size, dtype=torch.uint8, device="cuda")


def numba(size: int) -> tuple[float, Callable[[], object]]:
    cuda: Any = importlib.import_module("numba.cuda")
    numpy: Any = importlib.import_module("numpy")

    def twice(x: Any) -> None:
        at = cuda.grid(1)
        if at < x.size:
            x[at] *= 2

    double = cuda.jit(twice)
    x = cuda.to_device(numpy.ones(1000, dtype=numpy.float32))
    double[4, 256](x)
    return float(x.copy_to_host().sum()), lambda: cuda.device_array(size, dtype=numpy.uint8)


def bindings(size: int) -> tuple[float, Callable[[], object]]:
    """NVIDIA's own bindings of the driver."""
    cu: Any = importlib.import_module("cuda.bindings.driver")
    cu.cuInit(0)
    cu.cuCtxSetCurrent(cu.cuDevicePrimaryCtxRetain(0)[1])
    numpy: Any = importlib.import_module("numpy")
    host = numpy.full(1000, 2, dtype=numpy.float32)
    at = cu.cuMemAlloc(host.nbytes)[1]
    cu.cuMemcpyHtoD(at, host.ctypes.data, host.nbytes)
    back = numpy.zeros_like(host)
    cu.cuMemcpyDtoH(back.ctypes.data, at, host.nbytes)
    return float(back.sum()), lambda: _must(cu.cuMemAlloc(size)[0])


def _must(result: Any) -> None:
    if int(result):
        raise MemoryError(f"{result!s}: out of memory" if int(result) == 2 else str(result))


CLIENTS: Final = {"cupy": cupy, "jax": jax, "triton": triton, "numba": numba, "bindings": bindings}


def main() -> None:
    told: dict[str, Any] = {}
    try:
        told["sum"], ask = CLIENTS[sys.argv[1]](int(sys.argv[2]))
        try:
            ask()
            told["refused"] = ""
        except Exception as refusal:
            told["refused"] = f"{type(refusal).__name__}: {refusal}"[:300]
    except Exception as problem:
        told["problem"] = f"{type(problem).__name__}: {problem}"[:500]
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
