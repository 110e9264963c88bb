"""What a CUDA context takes on this GPU, as the daemon learns it: NVML's figure for a process that has nothing else."""

from __future__ import annotations

import sys

from tests.gpu.meter import Meter
from tests.gpu.session import Session
from tests.gpu.setting import Setting, source

TINY = str(1 << 16)


def cost(where: Setting) -> int:
    """Bytes that the context takes, and the driver's first page with it."""
    program = source(where.pack, "tests/gpu/programs/hold.py")
    command = [sys.executable, program, "1", TINY, TINY]
    with (
        Meter(where.uuid) as meter,
        Session(command, where.environment(), f"{where.scratch}/context.stderr") as tenant,
    ):
        tenant.hear()
        return meter.now()
