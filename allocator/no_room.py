"""Why there is no room for a request now: the numbers and the sentences of GP101.

Pure; knows nothing of how a place is chosen (placement.py)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gpuportion.allocator.devices import MINIMUM, Gpu, Holding
from gpuportion.errors import GpuportionError
from gpuportion.shim.request import Request
from gpuportion.sizes import both, gb

NAMED: Final = 8
"""Holders that a message names before it says `and 3 more`."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why there is no room now: the numbers of GP101. `fitting` of `eligible` GPUs have room for a first
    share; `best` has the most free. `suggested` is an amount that would fit, or ""; `elsewhere`: a GPU not
    selected would do; `alone`: only a GPU that nobody has would do."""

    want: Request
    best: Gpu
    best_free: int
    fitting: int
    eligible: int
    holdings: tuple[Holding, ...]
    suggested: str = ""
    elsewhere: bool = False
    alone: bool = False

    def error(self, subject: str) -> GpuportionError:
        """GP101, for `subject` such as `container "train"`."""
        hints = [f"GPU_MEMORY_LIMIT={self.suggested}"] if self.suggested else []
        hints += ["another GPU"] if self.elsewhere else []
        return GpuportionError(
            "GP101",
            subject=subject,
            asked=_asked(self.want),
            best=self._room(),
            holders=self._holders(),
            suggestion="".join(f"{hint}, " for hint in hints) + ("or " if hints else ""),
        )

    def _room(self) -> str:
        one = f"GPU {self.best.index} has {gb(self.best_free)} free to grant"
        if self.alone and self.holdings:
            one = f"GPU {self.best.index} is in use"
        if self.want.count == 1:
            return one
        return f"{self.fitting} of {gpus(self.eligible)} {_has(self.fitting)} that; {one}"

    def _holders(self) -> str:
        where = f"GPU {self.best.index}"
        names = [f"{held.holder} {gb(held.share.limit)}" for held in self.holdings]
        listed = ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
        parts = [f"Granted now on {where}: {listed}" if names else f"Nothing is granted on {where} now"]
        parts.append(f"{gb(self.best.reserved)} is reserved by the driver")
        if self.best.margin:
            parts.append(f"{gb(self.best.margin)} is kept back as margin")
        if self.best.unmanaged:
            parts.append(f"{gb(self.best.unmanaged)} is held without a grant or beyond one")
        return "; ".join(parts) + "."


def suggestion(room: int, minimum: int = MINIMUM) -> str:
    """The largest round amount within `room` bytes, such as `2G` or `640M`; "" if that is below the
    minimum, which is whole MiB: so is what a grant of the amount would have."""
    size = room // 10**9 * 10**9 or room // 10**7 * 10**7
    if size < minimum:
        return ""
    return f"{size // 10**9}G" if size >= 10**9 else f"{size // 10**6}M"


def _asked(want: Request) -> str:
    if want.whole:
        return f"all of {gpus(want.count)}"
    if want.fraction is not None:
        each = f"{float(want.fraction):g} of a GPU's memory"
    elif len(set(want.memory)) > 1:
        return " and ".join(both(size) for size in want.memory) + " of GPU memory"
    else:
        each = f"{both(want.memory[0])} of GPU memory"
    return each if want.count == 1 else f"{each} on each of {want.count} GPUs"


def gpus(count: int) -> str:
    return f"{count} GPU" + ("" if count == 1 else "s")


def _has(count: int) -> str:
    return "has" if count == 1 else "have"
