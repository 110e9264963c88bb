"""Which GPUs serve a request, or why none does.

    binpack     of the GPUs that fit, those already shared first, so that whole GPUs stay whole
    spread      the GPU with the fewest grants, then the one with the most room
    exclusive   a GPU that nobody has, and that nobody gets beside it

Several GPUs are all or nothing: the best linked set that fits. A single portion takes the GPU whose links to empty
ones are worst, so that good sets stay whole; then the fullest. Pure: values in, a Placement or a Refusal out; a
request that this node could never serve, however empty it were, raises GpuportionError."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from gpuportion.allocator import links, no_room
from gpuportion.allocator.devices import MINIMUM, Gpu, Held, Holding, Load, Share, matches, room
from gpuportion.allocator.no_room import Refusal, suggestion
from gpuportion.errors import GpuportionError
from gpuportion.shim.request import Request
from gpuportion.sizes import MIB, both, mib

BINPACK, SPREAD, EXCLUSIVE = "binpack", "spread", "exclusive"
STRATEGIES: Final = (BINPACK, SPREAD, EXCLUSIVE)


@dataclass(frozen=True, slots=True)
class Rules:
    """What the administrator says of placement: one of STRATEGIES, and the least bytes on a GPU."""

    strategy: str = BINPACK
    minimum: int = MINIMUM

    def alone(self, want: Request) -> bool:
        """Whether `want` shares its GPUs with nobody."""
        return want.whole or self.strategy == EXCLUSIVE


DEFAULT: Final = Rules()


@dataclass(frozen=True, slots=True)
class Placement:
    """Shares in the order in which the container sees its GPUs."""

    shares: tuple[Share, ...]


Cost = tuple[int, int, int, int]
NO_COST: Final[Cost] = (0, 0, 0, 0)
Slot = Callable[[Gpu, int], "Cost | None"]


def plan(
    gpus: Sequence[Gpu], granted: Held | Sequence[Holding], want: Request, rules: Rules = DEFAULT
) -> Placement | Refusal:
    """Where `want` is served, given what is granted already; holdings are added up where nobody did."""
    held = granted if isinstance(granted, Held) else Held.of(granted)
    _check_built(want)
    eligible = _eligible(gpus, want, rules)
    chosen = _choose(eligible, want.count, _slots(gpus, held, want, rules))
    if chosen is None:
        return _refusal(gpus, eligible, held, want, rules)
    alone = rules.alone(want)
    return Placement(
        tuple(Share(gpu.uuid, gpu.index, _need(gpu, want, k), alone) for k, gpu in enumerate(chosen))
    )


def _check_built(want: Request) -> None:
    """What this node cannot do is refused, never taken and left out."""
    if want.compute is not None:
        what, why = (
            f"{want.compute} % of a GPU's compute",
            "MIG alone divides compute, on GPUs with the MIG role and for containers. "
            "Drop GPU_COMPUTE, or give a GPU the role: gpuportion node set-role --mig-enabled",
        )
    elif want.mig is not None:
        what, why = f"the MIG profile {want.mig}", "GPU_ROLE=fraction keeps it from MIG. Drop one of them."
    else:
        return
    raise GpuportionError("GP109", what=what, why=why)


def _eligible(gpus: Sequence[Gpu], want: Request, rules: Rules) -> list[Gpu]:
    """The healthy, selected GPUs by index; GpuportionError where they could never serve `want`."""
    selected = [gpu for gpu in gpus if not want.select or any(matches(gpu, word) for word in want.select)]
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
    if want.count > len(healthy):
        raise GpuportionError(
            "GP107", key="GPU_COUNT", value=want.count, why=_too_many(gpus, selected, healthy)
        )
    _check_possible(healthy, want, rules.minimum)
    return healthy


def _too_many(gpus: Sequence[Gpu], selected: Sequence[Gpu], healthy: Sequence[Gpu]) -> str:
    """Why no more than the healthy ones can be had, and what to do about it."""
    ill = [f"GPU {gpu.index}" for gpu in selected if gpu.trouble]
    left = f"GPU_SELECT leaves {len(selected)} of {len(gpus)}" if len(selected) < len(gpus) else ""
    away = (
        f"{', '.join(ill)} {'is' if len(ill) == 1 else 'are'} ill (`gpuportion node` says why)" if ill else ""
    )
    why = " and ".join(part for part in (left, away) if part) or "the node has no others for portions"
    return (
        f"is more than the {no_room.gpus(len(healthy))} that may serve this request: {why}. "
        f"Write GPU_COUNT={len(healthy)}{' or less' if len(healthy) > 1 else ''}."
    )


def _check_possible(gpus: Sequence[Gpu], want: Request, minimum: int) -> None:
    if any(size < minimum for size in want.memory):
        why = f"is below the least that can be granted, {both(minimum)}. Write {_least(minimum)} or more."
        raise GpuportionError("GP107", key="GPU_MEMORY_LIMIT", value=mib(min(want.memory)), why=why)
    largest = max(gpus, key=lambda gpu: gpu.grantable + gpu.unmanaged)
    most = largest.grantable + largest.unmanaged
    if any(size > most for size in want.memory):
        why = (
            f"is more than the largest GPU can grant: GPU {largest.index} ({largest.model}) has {both(most)}. "
            "Write GPU_FRACTION=1 for all of it."
        )
        raise GpuportionError("GP107", key="GPU_MEMORY_LIMIT", value=both(max(want.memory)), why=why)
    if want.fraction is not None and all(_fraction_of(gpu, want.fraction) < minimum for gpu in gpus):
        why = (
            f"of GPU {largest.index} is below the least that can be granted, {both(minimum)}. "
            f"Write GPU_MEMORY_LIMIT={_least(minimum)} or more."
        )
        raise GpuportionError("GP107", key="GPU_FRACTION", value=float(want.fraction), why=why)


def _need(gpu: Gpu, want: Request, k: int) -> int:
    """Bytes that `want` takes of `gpu` as its k-th GPU."""
    if want.memory:
        return want.memory[k]
    return gpu.grantable if want.fraction is None else _fraction_of(gpu, want.fraction)


def _fraction_of(gpu: Gpu, fraction: Decimal) -> int:
    size = int(fraction * gpu.grantable)
    return size - size % MIB


def _least(minimum: int) -> str:
    return f"{minimum // MIB}Mi"


def _slots(gpus: Sequence[Gpu], held: Held, want: Request, rules: Rules) -> Slot:
    """`_cost` on what each GPU has, which is the same for every share."""
    empty = [gpu for gpu in gpus if gpu.uuid not in held.loads and not gpu.trouble]
    linked = links.sums(gpus, empty)
    return lambda gpu, k: _cost(gpu, held.load(gpu), want, k, rules, linked[gpu.uuid])


def _cost(gpu: Gpu, load: Load, want: Request, k: int, rules: Rules, linked: int) -> Cost | None:
    """How little we like to serve the k-th share from `gpu`, whose links to empty GPUs add up to `linked`; None: it
    does not fit. Costs of several add up."""
    left = room(gpu, load)
    need = _need(gpu, want, k)
    alone = rules.alone(want)
    if need < rules.minimum or need > left or (alone and load.shares):
        return None
    if alone:
        return (linked, left - need + gpu.unmanaged, 0, gpu.index)
    if rules.strategy == SPREAD:
        return (load.shares, need - left, linked, gpu.index)
    return (0 if load.shares else 1, linked, left - need, gpu.index)


def _choose(gpus: Sequence[Gpu], count: int, cost: Slot) -> tuple[Gpu, ...] | None:
    """The best linked `count` GPUs in rising order, the k-th fit for share k, and of equal ones the cheapest; None:
    there are not so many. A container sees its GPUs by rising index, so amounts that are given in order need a
    rising choice."""
    if count == 1:
        served = [(price, gpu) for gpu in gpus if (price := cost(gpu, 0)) is not None]
        return (min(served, key=lambda one: one[0])[1],) if served else None
    if links.are_alike(gpus):
        return _cheapest(gpus, count, cost)

    def fits(gpu: Gpu, k: int) -> bool:
        return cost(gpu, k) is not None

    def costs(way: Sequence[Gpu]) -> Cost:
        return _sum([price for k, gpu in enumerate(way) if (price := cost(gpu, k)) is not None])

    return links.best_set(gpus, count, fits, costs) or _cheapest(gpus, count, cost)


def _sum(costs: Sequence[Cost]) -> Cost:
    a, b, c, d = (sum(column) for column in zip(*costs, strict=True))
    return a, b, c, d


def _cheapest(gpus: Sequence[Gpu], count: int, cost: Slot) -> tuple[Gpu, ...] | None:
    """best[k] is the cheapest way to have served the first k shares from the GPUs seen so far."""
    best: list[tuple[Cost, tuple[Gpu, ...]] | None] = [(NO_COST, ()), *[None] * count]
    for gpu in gpus:
        for k in reversed(range(count)):
            before, price = best[k], cost(gpu, k)
            if before is None or price is None:
                continue
            total = _sum([before[0], price])
            there = best[k + 1]
            if there is None or total < there[0]:
                best[k + 1] = (total, (*before[1], gpu))
    last = best[count]
    return last[1] if last else None


def _refusal(
    gpus: Sequence[Gpu], eligible: Sequence[Gpu], held: Held, want: Request, rules: Rules
) -> Refusal:
    rooms = sorted(
        ((room(gpu, held.load(gpu)), gpu) for gpu in eligible), key=lambda one: (-one[0], one[1].index)
    )
    best_free, best = rooms[0]
    slot = _slots(gpus, held, want, rules)
    fitting = sum(slot(gpu, 0) is not None for gpu in eligible)
    here = [holding for holding in held.each() if holding.share.uuid == best.uuid]
    alone = rules.alone(want)
    return Refusal(
        want=want,
        best=best,
        best_free=best_free,
        fitting=fitting,
        eligible=len(eligible),
        holdings=tuple(sorted(here, key=lambda holding: -holding.share.limit)),
        suggested="" if alone and not want.whole else suggestion(rooms[want.count - 1][0], rules.minimum),
        elsewhere=bool(want.select) and _fits(gpus, slot, want.count),
        alone=alone,
    )


def _fits(gpus: Sequence[Gpu], slot: Slot, count: int) -> bool:
    healthy = sorted((gpu for gpu in gpus if not gpu.trouble), key=lambda gpu: gpu.index)
    return _cheapest(healthy, count, slot) is not None
