"""Which GPUs serve a request, or why none does.

Binpack: of the GPUs that fit, those already shared first, and of these the fullest, so that whole GPUs stay
whole. Several GPUs are all or nothing. Pure: values in, a Placement or a Refusal out; a request that this
node could never serve, however empty it were, raises GpuportionError."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fnmatch import fnmatchcase
from typing import Final

from gpuportion.allocator.devices import MINIMUM, Gpu, Holding, Share, free
from gpuportion.errors import GpuportionError
from gpuportion.shim.request import Request, Role
from gpuportion.sizes import MIB, both, gb, mib

LEAST: Final = f"{MINIMUM // MIB}Mi"
"""The smallest amount that can be asked for."""

NAMED: Final = 8
"""Holders that a message names before it says `and 3 more`."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Shares in the order in which the container sees its GPUs."""

    shares: tuple[Share, ...]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why there is no room now: the numbers of GP101. `fitting` of `eligible` GPUs have room for a first
    share; `best` has the most free. `suggested` is an amount that would fit, or ""; `elsewhere`: a GPU not
    selected would do."""

    want: Request
    best: Gpu
    best_free: int
    fitting: int
    eligible: int
    holdings: tuple[Holding, ...]
    suggested: str = ""
    elsewhere: bool = False

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
        if self.want.whole:
            one = f"GPU {self.best.index} is in use"
        if self.want.count == 1:
            return one
        return f"{self.fitting} of {_gpus(self.eligible)} {_has(self.fitting)} that; {one}"

    def _holders(self) -> str:
        where = f"GPU {self.best.index}"
        names = [f"{held.holder} {gb(held.share.limit)}" for held in self.holdings]
        listed = ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
        parts = [f"Granted now on {where}: {listed}" if names else f"Nothing is granted on {where} now"]
        parts.append(f"{gb(self.best.reserved)} is reserved by the driver")
        if self.best.unmanaged:
            parts.append(f"{gb(self.best.unmanaged)} is held by processes without a grant")
        return "; ".join(parts) + "."


Cost = tuple[int, int, int]
Slot = Callable[[Gpu, int], "Cost | None"]


def plan(gpus: Sequence[Gpu], holdings: Sequence[Holding], want: Request) -> Placement | Refusal:
    """Where `want` is served, given what is granted already."""
    _check_built(want)
    eligible = _eligible(gpus, want)
    chosen = _choose(eligible, want.count, _slots(holdings, want))
    if chosen is None:
        return _refusal(gpus, eligible, holdings, want)
    return Placement(
        tuple(Share(gpu.uuid, gpu.index, _need(gpu, want, k), want.whole) for k, gpu in enumerate(chosen))
    )


def _check_built(want: Request) -> None:
    """What this node cannot do is refused, never taken and left out."""
    if want.compute is not None:
        what, why = (
            f"{want.compute} % of a GPU's compute",
            "no share of time is enforced on a GPU yet. Drop GPU_COMPUTE.",
        )
    elif want.mig is not None:
        what, why = f"the MIG profile {want.mig}", "no MIG instance is made yet. Ask by GPU_MEMORY_LIMIT."
    elif want.role is Role.MIG:
        what, why = (
            "a portion by MIG alone",
            "no MIG instance is made yet. Ask for the role fraction, or for none.",
        )
    else:
        return
    raise GpuportionError("GP109", what=what, why=why)


def _eligible(gpus: Sequence[Gpu], want: Request) -> list[Gpu]:
    """The healthy, selected GPUs by index; GpuportionError where they could never serve `want`."""
    selected = [gpu for gpu in gpus if not want.select or any(_matches(gpu, word) for word in want.select)]
    if not selected:
        known = ", ".join(f"{gpu.index} ({gpu.model}, {gpu.uuid})" for gpu in gpus)
        raise GpuportionError(
            "GP107",
            key="GPU_SELECT",
            value=",".join(want.select),
            why=f"matches no GPU of this node. It has {known}.",
        )
    healthy = sorted((gpu for gpu in selected if not gpu.trouble), key=lambda gpu: gpu.index)
    if not healthy:
        raise GpuportionError("GP302", why="; ".join(f"GPU {gpu.index}: {gpu.trouble}" for gpu in selected))
    _check_possible(healthy, want)
    return healthy


def _check_possible(gpus: Sequence[Gpu], want: Request) -> None:
    if want.count > len(gpus):
        why = f"is more than the {_gpus(len(gpus))} that may serve this request."
        raise GpuportionError("GP107", key="GPU_COUNT", value=want.count, why=why)
    if any(size < MINIMUM for size in want.memory):
        why = f"is below the least that can be granted, {both(MINIMUM)}. Write {LEAST} or more."
        raise GpuportionError("GP107", key="GPU_MEMORY_LIMIT", value=mib(min(want.memory)), why=why)
    largest = max(gpus, key=lambda gpu: gpu.grantable + gpu.unmanaged)
    most = largest.grantable + largest.unmanaged
    if any(size > most for size in want.memory):
        why = (
            f"is more than the largest GPU can grant: GPU {largest.index} ({largest.model}) has {both(most)}. "
            "Write GPU_FRACTION=1 for all of it."
        )
        raise GpuportionError("GP107", key="GPU_MEMORY_LIMIT", value=both(max(want.memory)), why=why)
    if want.fraction is not None and all(_fraction_of(gpu, want.fraction) < MINIMUM for gpu in gpus):
        why = (
            f"of GPU {largest.index} is below the least that can be granted, {both(MINIMUM)}. "
            f"Write GPU_MEMORY_LIMIT={LEAST} or more."
        )
        raise GpuportionError("GP107", key="GPU_FRACTION", value=float(want.fraction), why=why)


def _matches(gpu: Gpu, word: str) -> bool:
    if word.isascii() and word.isdigit():
        return gpu.index == int(word)
    uuid = gpu.uuid.lower()
    return word.lower() in (uuid, uuid.removeprefix("gpu-")) or fnmatchcase(gpu.model.lower(), word.lower())


def _need(gpu: Gpu, want: Request, k: int) -> int:
    """Bytes that `want` takes of `gpu` as its k-th GPU."""
    if want.memory:
        return want.memory[k]
    return gpu.grantable if want.fraction is None else _fraction_of(gpu, want.fraction)


def _fraction_of(gpu: Gpu, fraction: Decimal) -> int:
    size = int(fraction * gpu.grantable)
    return size - size % MIB


def _slots(holdings: Sequence[Holding], want: Request) -> Slot:
    """`_cost` on what each GPU has, which is the same for every share."""
    by_gpu: dict[str, list[Holding]] = {}
    for holding in holdings:
        by_gpu.setdefault(holding.share.uuid, []).append(holding)
    return lambda gpu, k: _cost(gpu, by_gpu.get(gpu.uuid, ()), want, k)


def _cost(gpu: Gpu, here: Sequence[Holding], want: Request, k: int) -> Cost | None:
    """How little we like to serve the k-th share from `gpu`; None: it does not fit. Costs of several add
    up."""
    left = free(gpu, here)
    need = _need(gpu, want, k)
    if need < MINIMUM or need > left:  # a whole GPU needs all of it, so nobody else can be there
        return None
    return (0 if here else 1, left - need if not want.whole else gpu.unmanaged, gpu.index)


def _choose(gpus: Sequence[Gpu], count: int, cost: Slot) -> tuple[Gpu, ...] | None:
    """The cheapest `count` GPUs in rising order, the k-th fit for share k; None: there are not so many.

    A container sees its GPUs by rising index, so amounts that are given in order need a rising choice.
    best[k] is the cheapest way to have served the first k shares from the GPUs seen so far.
    """
    best: list[tuple[Cost, tuple[Gpu, ...]] | None] = [((0, 0, 0), ()), *[None] * count]
    for gpu in gpus:
        for k in reversed(range(count)):
            before, price = best[k], cost(gpu, k)
            if before is None or price is None:
                continue
            a, b, c = before[0]
            total = (a + price[0], b + price[1], c + price[2])
            there = best[k + 1]
            if there is None or total < there[0]:
                best[k + 1] = (total, (*before[1], gpu))
    last = best[count]
    return last[1] if last else None


def _refusal(
    gpus: Sequence[Gpu], eligible: Sequence[Gpu], holdings: Sequence[Holding], want: Request
) -> Refusal:
    rooms = sorted(
        ((free(gpu, holdings), gpu) for gpu in eligible), key=lambda room: (-room[0], room[1].index)
    )
    best_free, best = rooms[0]
    slot = _slots(holdings, want)
    fitting = sum(slot(gpu, 0) is not None for gpu in eligible)
    here = tuple(held for held in holdings if held.share.uuid == best.uuid)
    return Refusal(
        want=want,
        best=best,
        best_free=best_free,
        fitting=fitting,
        eligible=len(eligible),
        holdings=tuple(sorted(here, key=lambda held: -held.share.limit)),
        suggested=suggestion(rooms[want.count - 1][0]),
        elsewhere=bool(want.select) and _fits(gpus, holdings, want),
    )


def _fits(gpus: Sequence[Gpu], holdings: Sequence[Holding], want: Request) -> bool:
    healthy = sorted((gpu for gpu in gpus if not gpu.trouble), key=lambda gpu: gpu.index)
    return _choose(healthy, want.count, _slots(holdings, want)) is not None


def suggestion(room: int) -> str:
    """The largest round amount within `room` bytes, such as `2G` or `640M`; "" if that is below the
    minimum."""
    text, size = (f"{room // 10**9}G", room // 10**9 * 10**9)
    if size < 10**9:
        text, size = (f"{room // 10**7 * 10}M", room // 10**7 * 10**7)
    return text if size - size % MIB >= MINIMUM else ""


def _asked(want: Request) -> str:
    if want.whole:
        return f"all of {_gpus(want.count)}"
    if want.fraction is not None:
        each = f"{float(want.fraction):g} of a GPU's memory"
    elif len(set(want.memory)) > 1:
        return " and ".join(both(size) for size in want.memory) + " of GPU memory"
    else:
        each = f"{both(want.memory[0])} of GPU memory"
    return each if want.count == 1 else f"{each} on each of {want.count} GPUs"


def _gpus(count: int) -> str:
    return f"{count} GPU" + ("" if count == 1 else "s")


def _has(count: int) -> str:
    return "has" if count == 1 else "have"
