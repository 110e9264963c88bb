"""What memory costs on a simulated device, beyond what was asked for.

Real drivers vary in these, and tell nobody: the state file holds them for the simulated driver alone. A test
that draws them from a seed finds code that counts on one driver's habits.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Final

from gpuportion.errors import GpuportionError
from gpuportion.sizes import MIB

KIB: Final = 1024
UNIT: Final = 64 * KIB

DEFAULTS: Final = {
    "granularity": 2 * MIB,  # of large blocks, and of virtual memory
    "small": 1 * MIB,  # blocks up to this size share slabs
    "slab": 2 * MIB,
    "pool_chunk": 32 * MIB,
    "context": 224 * MIB,
    "module": 2 * MIB,
    "green": 0,  # a green context, beside the primary one that it is a view of
    "array": UNIT,  # what an array's size is rounded up to
    "array_row": 512,  # bytes to which its rows are padded
    "array_rows": 16,  # rows to which its planes are padded
}

DRAWN_FROM: Final = {
    "granularity": (64 * KIB, 512 * KIB, 2 * MIB, 4 * MIB),
    "small": (0, 64 * KIB, 512 * KIB, 1 * MIB),
    "slab": (1 * MIB, 2 * MIB, 4 * MIB, 8 * MIB),
    "pool_chunk": (4 * MIB, 32 * MIB, 64 * MIB),
    "context": tuple(n * MIB for n in range(64, 320, 16)),
    "module": (64 * KIB, 1 * MIB, 2 * MIB, 6 * MIB),
    "green": (0,),
    "array": (UNIT,),
    "array_row": (64, 128, 256, 512),
    "array_rows": (1, 8, 16),
}

LARGEST: Final = {
    "granularity": 64 * MIB,
    "small": 16 * MIB,
    "slab": 16 * MIB,
    "pool_chunk": 1024 * MIB,
    "context": 4096 * MIB,
    "module": 1024 * MIB,
    "green": 1024 * MIB,
    "array": 16 * MIB,
    "array_row": 64 * KIB,
    "array_rows": 1024,
}

STEPS: Final = {"array_row": 64, "array_rows": 1}
"""What a cost is a multiple of, if not of `UNIT`."""

NEVER_0: Final = ("slab", "pool_chunk", "array", "array_row", "array_rows")


def settle(given: Mapping[str, int] | None, seed: int | None) -> dict[str, int]:
    """All costs in bytes: those given; the others by default or, with a seed, drawn. GP107 for a wrong one."""
    draw = random.Random(seed)
    drawn = {key: draw.choice(choices) for key, choices in DRAWN_FROM.items()}
    costs = {**(DEFAULTS if seed is None else drawn), **(given or {})}
    for key, value in costs.items():
        _check(key, value)
    if costs["small"] > costs["slab"]:
        raise _bad("small", costs["small"], f"is more than a slab holds ({costs['slab']}).")
    return costs


def _check(key: str, value: int) -> None:
    if key not in DEFAULTS:
        raise _bad(key, value, f"is no cost. Known: {' '.join(DEFAULTS)}.")
    step = STEPS.get(key, UNIT)
    if value % step or not 0 <= value <= LARGEST[key]:
        raise _bad(key, value, f"is not a multiple of {step} up to {LARGEST[key]}.")
    if key in NEVER_0 and not value:
        raise _bad(key, value, "must not be 0.")
    if key == "granularity" and (not value or value & (value - 1)):
        raise _bad(key, value, "is not a power of two.")


def _bad(key: str, value: int, why: str) -> GpuportionError:
    return GpuportionError("GP107", key=f"cost {key}", value=value, why=why, exit_status=2)
