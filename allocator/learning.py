"""How much memory a process's CUDA context takes on each model of GPU under each driver: learned, and kept over
reboots.

A container's library counts what its processes allocate; the context comes on top, by an amount that
depends on board, driver and CUDA version, and that only NVML on the host shows. What NVML says of a process
less what its ledger counts beyond the context is an estimate. The ledger is written by the container, so an
estimate is only a vote: the median of the last grants decides, and it is never above the least that NVML,
which nobody in a container can lie to, ever saw a process hold for two samples.

    <state dir>/context.json     {"NVIDIA A100-SXM4-80GB, driver 550.163.01":
                                     {"votes": [440401920, ...], "ceiling": 2111832064}}

Until something is learned, DEFAULT is used. A new value counts for new grants.
"""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from gpuportion.sizes import MIB

DEFAULT: Final = 304 * MIB
VOTES: Final = 15
SMALLEST: Final = 8 * MIB
LARGEST: Final = 4096 * MIB


@dataclass(frozen=True, slots=True)
class Learned:
    """What is known of one kind, bytes. `ceiling`: the least that NVML saw a process hold."""

    votes: tuple[int, ...] = ()
    ceiling: int = LARGEST
    context: int = field(init=False)

    def __post_init__(self) -> None:
        voted = int(statistics.median(self.votes)) if self.votes else DEFAULT
        object.__setattr__(self, "context", min(voted, self.ceiling))


NOTHING: Final = Learned()


def kind(model: str, driver: str) -> str:
    """What contexts of one size have in common. Another driver is learned anew: what was voted under the last
    one, and the least that was seen under it, say nothing."""
    return f"{model}, driver {driver}"


def estimate(held: int, counted: int, context: int) -> int | None:
    """Bytes of the context of a process that NVML says holds `held`, and that its ledger counts with
    `counted`, of which `context` for the context. None: it cannot be right."""
    found = held - (counted - context)
    return found if SMALLEST <= found <= min(LARGEST, held) else None


def vote(learned: Learned, estimated: int, held: int) -> Learned:
    """With one grant's estimate more."""
    votes = (*learned.votes, estimated)[-VOTES:]
    return Learned(votes, max(SMALLEST, min(learned.ceiling, held)))


def load(path: str) -> dict[str, Learned]:
    """What was learned before; nothing where the file is not there or is no such file."""
    try:
        with open(path) as file:
            kept = json.load(file)
        return {str(name): _learned(one["votes"], one["ceiling"]) for name, one in kept.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def _learned(votes: Sequence[object], ceiling: object) -> Learned:
    good = [one for one in votes if isinstance(one, int) and SMALLEST <= one <= LARGEST]
    if not isinstance(ceiling, int):
        raise ValueError("the ceiling is no number")
    return Learned(tuple(good[-VOTES:]), max(SMALLEST, min(ceiling, LARGEST)))


def save(path: str, learned: dict[str, Learned]) -> None:
    """Whole or not at all."""
    kept = {name: {"votes": one.votes, "ceiling": one.ceiling} for name, one in learned.items()}
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    with open(f"{path}.new", "w") as file:
        json.dump(kept, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(f"{path}.new", path)
