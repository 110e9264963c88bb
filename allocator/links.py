"""How well GPUs are linked, as one number a pair, and the sets of them that are linked best.

    100 + n     n NVLinks between the two, directly or through switches
    50 .. 10    PCIe: one switch, several switches, one host bridge, one NUMA node, across the machine
    0           nothing is known

Pure. A set is as good as its worst pair, because collectives go at the pace of the slowest link; of equally
good ones the one with the larger sum. Knows nothing of memory or grants."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from gpuportion.allocator.devices import Gpu

NVLINK: Final = 100
PCIE: Final = {  # NVML's nvmlGpuTopologyLevel_t -> rank
    0: 50,  # internal: on one board
    10: 50,  # single: one PCIe switch
    20: 40,  # multiple: several switches
    30: 30,  # host bridge
    40: 20,  # node: one NUMA node (CPU in older headers)
    50: 10,  # system: across sockets
}

STEPS: Final = 2_500
"""Sets, whole or begun, that are looked at before the best one so far is taken: more than 11 GPUs have. With 16 GPUs
of unlike links the best may be missed; the answer never takes long (tens of milliseconds), for others wait."""

UNBOUND: Final = 1 << 30
"""The worst pair of a set that has none."""

Quality = tuple[int, int]
"""(the worst pair, the sum of all pairs)."""

Ranks = Sequence[Sequence[int]]
"""Of each GPU to each, by places in a list of them."""

Way = tuple[tuple[int, ...], int, int]
"""A set that is begun: places in the list, its worst pair, the sum of its pairs."""


def rank(gpu: Gpu, other: Gpu) -> int:
    """Of one pair, by what either of them says."""
    return max(gpu.links.get(other.uuid, 0), other.links.get(gpu.uuid, 0))


def quality(gpus: Sequence[Gpu]) -> Quality:
    """Of a set; of one GPU alone (0, 0)."""
    pairs = [rank(one, other) for at, one in enumerate(gpus) for other in gpus[:at]]
    return (min(pairs), sum(pairs)) if pairs else (0, 0)


def sums(gpus: Sequence[Gpu], others: Sequence[Gpu]) -> dict[str, int]:
    """By UUID, what the links of each of `gpus` to all `others` add up to. Asked for every grant, so in one piece."""
    found = {}
    for gpu in gpus:
        to, uuid, total = gpu.links.get, gpu.uuid, 0
        for other in others:
            if other.uuid != uuid:
                total += max(to(other.uuid, 0), other.links.get(uuid, 0))
        found[uuid] = total
    return found


def ranks(gpus: Sequence[Gpu]) -> Ranks:
    """Of each to each."""
    return [[rank(one, other) for other in gpus] for one in gpus]


def are_alike(ranks: Ranks) -> bool:
    """Whether every pair is linked as well as every other: then any set is the best."""
    return len({one for at, row in enumerate(ranks) for one in row[:at]}) <= 1


def best_set(
    ranks: Ranks,
    count: int,
    fits: Callable[[int, int], bool],
    cost: Callable[[Sequence[int]], tuple[int, ...]],
) -> tuple[int, ...] | None:
    """The best linked `count` GPUs in their order, by their places in `ranks`, the k-th of which `fits` share k; of
    equal ones those of the least `cost`. None: none were found within STEPS."""
    best: tuple[int, int, tuple[int, ...]] | None = None
    chosen: tuple[int, ...] | None = None
    begun: list[Way] = [((), UNBOUND, 0)]
    for _ in range(STEPS):
        if not begun:
            break
        way, worst, total = begun.pop()
        if best is not None and -worst > best[0]:
            continue
        if len(way) < count:
            begun += _longer(way, worst, total, ranks, len(ranks) - count, fits)
            continue
        if best is None or (-worst, -total) <= best[:2]:
            found = (-worst, -total, cost(way))
            best, chosen = (found, way) if best is None or found < best else (best, chosen)
    return chosen


def _longer(
    way: tuple[int, ...],
    worst: int,
    total: int,
    ranks: Ranks,
    spare: int,
    fits: Callable[[int, int], bool],
) -> Iterator[Way]:
    """`way` with one more GPU, in falling order, for the last is looked at first; `spare` may be left out in all."""
    first = way[-1] + 1 if way else 0
    for at in range(spare + len(way), first - 1, -1):
        if fits(at, len(way)):
            near = [ranks[at][there] for there in way]
            yield (*way, at), min([worst, *near]), total + sum(near)


def from_nvml(level: Mapping[str, int], nvlinks: Mapping[str, int]) -> dict[str, int]:
    """Ranks by UUID of what NVML says of one GPU: topology level and number of NVLinks to each other one."""
    ranks = {uuid: PCIE.get(value, 0) for uuid, value in level.items()}
    return ranks | {uuid: NVLINK + count for uuid, count in nvlinks.items() if count}
