"""Runs tests/simgpu/client.py and names what tests ask of it."""

from __future__ import annotations

import contextlib
import json
import os
import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from gpuportion.simgpu import Sim

CLIENT: Final = Path(__file__).with_name("client.py")
OUT: Final = "&"
MIB: Final = 1 << 20
SUCCESS: Final = 0
INVALID_VALUE: Final = 1
OUT_OF_MEMORY: Final = 2
NOT_INITIALIZED: Final = 3
NO_DEVICE: Final = 100


class Driver:
    """A process that has loaded the simulated driver. Every method is one driver call unless it says so."""

    def __init__(
        self,
        env: Mapping[str, str],
        *,
        command: Sequence[str] = (),
        fds: Sequence[int] = (),
    ) -> None:
        self.process = subprocess.Popen(
            [*command, sys.executable, str(CLIENT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **env},
            pass_fds=fds,
        )

    def ask(self, **asked: Any) -> dict[str, Any]:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps(asked) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, f"the client ended ({self.process.wait(60)})"
        said = json.loads(line)
        assert isinstance(said, dict)
        return said

    def call(self, name: str, *args: Any) -> tuple[int, ...]:
        """(result, outputs...) of any driver function."""
        said = self.ask(call=name, args=args)
        return said["result"], *said["out"]

    def fill(self, name: str, size: int, *args: Any) -> str:
        """The call must succeed; what it made of a structure of `size` bytes, its first argument, in hex."""
        said = self.ask(call=name, args=[{"hex": "00" * size}, *args])
        assert said["result"] == SUCCESS, f"{name}: {said['result']}"
        return str(said["after"][0])

    def do(self, name: str, *args: Any) -> int:
        """The call must succeed; its first output, or 0."""
        result, *out = self.call(name, *args)
        assert result == SUCCESS, f"{name}: {result}"
        return out[0] if out else 0

    def read(self, address: int, size: int) -> bytes:
        """Bytes of host memory; no driver call."""
        return bytes.fromhex(self.ask(read=[address, size])["hex"])

    def open(self, device: int = 0) -> Driver:
        """cuInit and the device's primary context, made current."""
        self.do("cuInit", 0)
        self.do("cuCtxSetCurrent", self.do("cuDevicePrimaryCtxRetain", OUT, device))
        return self

    def alloc(self, size: int) -> int:
        return self.do("cuMemAlloc_v2", OUT, size)

    def free(self, pointer: int) -> None:
        self.do("cuMemFree_v2", pointer)

    def info(self) -> tuple[int, int]:
        """(free, total) as cuMemGetInfo says."""
        result, free, total = self.call("cuMemGetInfo_v2", OUT, OUT)
        assert result == SUCCESS
        return free, total

    def create(self, size: int, *, exportable: bool = False, device: int = 0) -> int:
        """A handle of cuMemCreate."""
        return self.do("cuMemCreate", OUT, size, properties(exportable=exportable, device=device), 0)

    def map(self, handle: int, size: int) -> int:
        """Several calls: reserves addresses, maps, makes accessible."""
        at = self.do("cuMemAddressReserve", OUT, size, 0, 0, 0)
        self.do("cuMemMap", at, size, 0, handle, 0)
        self.do("cuMemSetAccess", at, size, {"hex": struct.pack("<iii", 1, 0, 3).hex()}, 1)
        return at

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait(60)

    def __enter__(self) -> Driver:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        with contextlib.suppress(BrokenPipeError):
            self.process.communicate(timeout=60)


def properties(*, exportable: bool = False, device: int = 0, place: int = 1) -> dict[str, str]:
    """A CUmemAllocationProp of pinned memory; `place` 1 is a device, 2 the host."""
    return {"hex": struct.pack("<iiiiQ8x", 1, int(exportable), place, device, 0).hex()}


def pool_properties(
    *, device: int = 0, place: int = 1, max_size: int = 0, exportable: bool = False
) -> dict[str, str]:
    """A CUmemPoolProps."""
    return {"hex": struct.pack("<iiiiQQ56x", 1, int(exportable), place, device, 0, max_size).hex()}


def driver(sim: Sim, **env: str) -> Driver:
    """A client on a simulation of this test."""
    return Driver({**sim.env(), **env})
