"""The end of a process: when its share is somebody else's, the driver has freed its memory."""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from gpuportion.allocator import pages
from tests.native.capped import Grant

LOCK = struct.Struct("hhqqi4x")
PROGRAM = """
import ctypes, fcntl, os, struct, sys, time
cu = ctypes.CDLL("libcuda.so.1")
assert cu.cuInit(0) == 0
device = os.open(sys.argv[1], os.O_RDWR)  # stands for one of the driver's, which opens some until a context is there
fcntl.fcntl(device, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 1, 0))
slow = os.memfd_create("memory")  # takes a while to close, as a device does whose memory is freed
os.posix_fallocate(slow, 0, 256 << 20)
context = ctypes.c_void_p()
assert cu.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0) == 0
print("holds", flush=True)
time.sleep(600)
"""


def is_locked(file: int) -> bool:
    asked = LOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 1, 0)
    return bool(LOCK.unpack(fcntl.fcntl(file, fcntl.F_OFD_GETLK, asked))[0] != fcntl.F_UNLCK)


@pytest.mark.parametrize("again", [False, True], ids=["first", "after-a-fork"])
def test_a_share_is_held_until_the_drivers_descriptors_are_closed(
    grant: Grant, tmp_path: Path, again: bool
) -> None:
    """The kernel closes those of a killed process from the highest number down; ours is below the driver's, in a
    forked child, too."""
    device = tmp_path / "device"
    device.touch()
    start = "import ctypes, os\nassert ctypes.CDLL('libcuda.so.1').cuMemGetInfo_v2(None, None)\n"
    program = f"{start}if os.fork(): os.wait(); os._exit(0)\n{PROGRAM}" if again else PROGRAM
    with (
        subprocess.Popen(
            [sys.executable, "-c", program, device], env=grant.preload(), stdout=subprocess.PIPE
        ) as running,
        device.open("r+b") as file,
    ):
        assert running.stdout is not None and running.stdout.readline() == b"holds\n"
        ledger = str(grant.folder / "ledger")
        assert pages.holders(ledger) == 1 and is_locked(file.fileno())
        (child,) = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split() or [
            str(running.pid)
        ]
        os.kill(int(child), 9)
        while pages.holders(ledger):
            pass
        assert not is_locked(file.fileno())
