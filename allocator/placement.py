"""Which GPUs serve a request, or why none does.

    binpack     of the GPUs that fit, those already shared first, so that whole GPUs stay whole
    spread      the GPU with the fewest grants, then the one with the most room
    exclusive   a GPU that nobody has, and that nobody gets beside it

Several GPUs are all or nothing: the best linked set that fits. A single portion takes the GPU whose links to empty
ones are worst, so that good sets stay whole; then the fullest. Pure: values in, a Placement or a Refusal out; a
request that this node could never serve, however empty it were, raises GpuportionError."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from gpuportion.allocator import links, no_room
from gpuportion.allocator.devices import MINIMUM, NOTHING, Gpu, Held, Holding, Load, Share, matches, room
from gpuportion.allocator.no_room import Refusal, suggestion
from gpuportion.allocator.pool import Offer, Pool
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
Prices = Sequence["Cost | None"]
"""Of one share, by the GPU's place: how little we like to serve it from there. None: it does not fit. Costs of several
shares add up."""


def plan(
    gpus: Pool | Sequence[Gpu],
    granted: Held | Sequence[Holding],
    want: Request,
    rules: Rules = DEFAULT,
    context: Callable[[str], int] = lambda _model: 0,
) -> Placement | Refusal:
    """Where `want` is served, given what is granted already. What is asked often is given ready: a pool, and holdings
    added up. `context`: bytes of a process's context on a model, for the shares."""
    pool = gpus if isinstance(gpus, Pool) else Pool(gpus)
    held = granted if isinstance(granted, Held) else Held.of(granted)
    _check_built(want)
    eligible = _eligible(pool, want, rules)
    chosen = _choose(pool, eligible, held.loads, want, rules)
    if chosen is None:
        return _refusal(pool, eligible, held, want, rules)
    alone = rules.alone(want)
    shares = [
        Share(one.uuid, one.index, _need(one, want, k), alone, context(one.gpu.model))
        for k, one in enumerate(chosen)
    ]
    return Placement(tuple(shares))


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


def _eligible(pool: Pool, want: Request, rules: Rules) -> Sequence[Offer]:
    """The healthy, selected GPUs by index; GpuportionError where they could never serve `want`."""
    eligible: Sequence[Offer] = pool.healthy
    if want.select:
        eligible = [one for one in pool.healthy if _is_selected(one.gpu, want)]
    if not eligible or want.count > len(eligible):
        raise _too_few(pool.gpus, want, eligible)
    _check_possible(eligible, want, rules.minimum)
    return eligible


def _is_selected(gpu: Gpu, want: Request) -> bool:
    return not want.select or any(matches(gpu, word) for word in want.select)


def _too_few(gpus: Sequence[Gpu], want: Request, eligible: Sequence[Offer]) -> GpuportionError:
    """Why they could never serve it: none is selected, none is healthy, or it wants more."""
    selected = [gpu for gpu in gpus if _is_selected(gpu, want)]
    if not selected:
        known = ", ".join(f"{gpu.index} ({gpu.model}, {gpu.uuid})" for gpu in gpus)
        why = f"matches no GPU of this node. It has {known}."
        return GpuportionError("GP107", key="GPU_SELECT", value=",".join(want.select), why=why)
    if not eligible:
        return GpuportionError("GP302", why="; ".join(f"GPU {gpu.index}: {gpu.trouble}" for gpu in selected))
    why = _too_many(gpus, selected, len(eligible))
    return GpuportionError("GP107", key="GPU_COUNT", value=want.count, why=why)


def _too_many(gpus: Sequence[Gpu], selected: Sequence[Gpu], healthy: int) -> str:
    """Why no more than the healthy ones can be had, and what to do about it."""
    ill = [f"GPU {gpu.index}" for gpu in selected if gpu.trouble]
    left = f"GPU_SELECT leaves {len(selected)} of {len(gpus)}" if len(selected) < len(gpus) else ""
    away = (
        f"{', '.join(ill)} {'is' if len(ill) == 1 else 'are'} ill (`gpuportion node` says why)" if ill else ""
    )
    why = " and ".join(part for part in (left, away) if part) or "the node has no others for portions"
    return (
        f"is more than the {no_room.gpus(healthy)} that may serve this request: {why}. "
        f"Write GPU_COUNT={healthy}{' or less' if healthy > 1 else ''}."
    )


def _check_possible(gpus: Sequence[Offer], want: Request, minimum: int) -> None:
    if want.memory and min(want.memory) < minimum:
        why = f"is below the least that can be granted, {both(minimum)}. Write {_least(minimum)} or more."
        raise GpuportionError("GP107", key="GPU_MEMORY_LIMIT", value=mib(min(want.memory)), why=why)
    most = max([one.ever for one in gpus])
    if want.memory and max(want.memory) > most:
        largest = _largest(gpus)
        why = (
            f"is more than the largest GPU can grant: GPU {largest.index} ({largest.model}) has {both(most)}. "
            "Write GPU_FRACTION=1 for all of it."
        )
        raise GpuportionError("GP107", key="GPU_MEMORY_LIMIT", value=both(max(want.memory)), why=why)
    if want.fraction is not None and all(_fraction_of(gpu, want.fraction) < minimum for gpu in gpus):
        why = (
            f"of GPU {_largest(gpus).index} is below the least that can be granted, {both(minimum)}. "
            f"Write GPU_MEMORY_LIMIT={_least(minimum)} or more."
        )
        raise GpuportionError("GP107", key="GPU_FRACTION", value=float(want.fraction), why=why)


def _largest(gpus: Sequence[Offer]) -> Gpu:
    return max(gpus, key=lambda one: one.ever).gpu


def _need(one: Offer, want: Request, k: int) -> int:
    """Bytes that `want` takes of a GPU as its k-th one."""
    if want.memory:
        return want.memory[k]
    return one.grantable if want.fraction is None else _fraction_of(one, want.fraction)


def _fraction_of(one: Offer, fraction: Decimal) -> int:
    size = int(fraction * one.grantable)
    return size - size % MIB


def _least(minimum: int) -> str:
    return f"{minimum // MIB}Mi"


def _table(
    pool: Pool, gpus: Sequence[Offer], loads: Mapping[str, Load], want: Request, rules: Rules
) -> list[Prices]:
    """Prices from these of the pool's GPUs, a row for each share."""
    linked = pool.linked(loads)
    return [_prices(gpus, loads, linked, want, k, rules) for k in range(want.count)]


def _prices(
    gpus: Sequence[Offer],
    loads: Mapping[str, Load],
    linked: Mapping[str, int],
    want: Request,
    k: int,
    rules: Rules,
) -> Prices:
    """Of the k-th share, from each of `gpus`, whose links to empty GPUs add up to `linked`."""
    alone, spread, minimum = rules.alone(want), rules.strategy == SPREAD, rules.minimum
    found: list[Cost | None] = []
    for one in gpus:
        load, need = loads.get(one.uuid, NOTHING), _need(one, want, k)
        left = room(one, load) - need
        if need < minimum or left < 0 or (alone and load.shares):
            found.append(None)
        elif alone:
            found.append((linked[one.uuid], left + one.unmanaged, 0, one.index))
        elif spread:
            found.append((load.shares, -left, linked[one.uuid], one.index))
        else:
            found.append((0 if load.shares else 1, linked[one.uuid], left, one.index))
    return found


def _choose(
    pool: Pool, gpus: Sequence[Offer], loads: Mapping[str, Load], want: Request, rules: Rules
) -> Sequence[Offer] | None:
    """The best linked of `gpus` in rising order, the k-th fit for share k, and of equal ones the cheapest; None:
    there are not so many. A container sees its GPUs by rising index, so amounts that are given in order need a
    rising choice."""
    table = _table(pool, gpus, loads, want, rules)
    if want.count > 1:
        several = _several(pool.ranks(gpus), table)
        return None if several is None else [gpus[at] for at in several]
    (prices,) = table
    least = min(filter(None, prices), default=None)
    return None if least is None else [gpus[prices.index(least)]]


def _several(ranks: links.Ranks, table: Sequence[Prices]) -> tuple[int, ...] | None:
    """Their places, one for each row of prices; None: there are not so many."""
    if links.are_alike(ranks):
        return _cheapest(table)

    def fits(at: int, k: int) -> bool:
        return table[k][at] is not None

    def costs(way: Sequence[int]) -> Cost:
        return _sum([price for at, prices in zip(way, table, strict=True) if (price := prices[at])])

    return links.best_set(ranks, len(table), fits, costs) or _cheapest(table)


def _sum(costs: Sequence[Cost]) -> Cost:
    a, b, c, d = map(sum, zip(*costs, strict=True))
    return a, b, c, d


def _cheapest(table: Sequence[Prices]) -> tuple[int, ...] | None:
    """best[k] is the cheapest way to have served the first k shares from the GPUs seen so far."""
    best: list[tuple[Cost, tuple[int, ...]] | None] = [(NO_COST, ()), *[None] * len(table)]
    for at in range(len(table[0])):
        for k in reversed(range(len(table))):
            before, price = best[k], table[k][at]
            if before is None or price is None:
                continue
            total = _sum([before[0], price])
            there = best[k + 1]
            if there is None or total < there[0]:
                best[k + 1] = (total, (*before[1], at))
    last = best[-1]
    return last[1] if last else None


def _refusal(pool: Pool, eligible: Sequence[Offer], held: Held, want: Request, rules: Rules) -> Refusal:
    rooms = sorted(
        ((room(one, held.loads.get(one.uuid, NOTHING)), one.gpu) for one in eligible),
        key=lambda one: (-one[0], one[1].index),
    )
    best_free, best = rooms[0]
    here = [holding for holding in held.each() if holding.share.uuid == best.uuid]
    alone = rules.alone(want)
    first, *_ = _table(pool, eligible, held.loads, want, rules)
    everywhere = _table(pool, pool.healthy, held.loads, want, rules)

    return Refusal(
        want=want,
        best=best,
        best_free=best_free,
        fitting=sum(price is not None for price in first),
        eligible=len(eligible),
        holdings=tuple(sorted(here, key=lambda holding: -holding.share.limit)),
        suggested="" if alone and not want.whole else suggestion(rooms[want.count - 1][0], rules.minimum),
        elsewhere=_cheapest(everywhere) is not None,
        alone=alone,
    )
