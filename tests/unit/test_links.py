"""Which GPUs belong together: ranks of pairs, and the best set against trying all of them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuportion.allocator import links
from gpuportion.allocator.devices import Gpu, Holding, Share
from gpuportion.allocator.no_room import Refusal
from gpuportion.allocator.placement import Placement, Rules, plan
from gpuportion.shim.request import Request
from gpuportion.sizes import MIB

GIB = 1 << 30


def node(count: int, ranks: Mapping[tuple[int, int], int], total: int = 80 * GIB) -> list[Gpu]:
    """GPUs with these ranks between pairs (a, b), a < b; others are not linked."""
    gpus = []
    for at in range(count):
        near = {f"GPU-{b if a == at else a}": rank for (a, b), rank in ranks.items() if at in (a, b)}
        gpus.append(Gpu(at, f"GPU-{at}", "NVIDIA A100", total, links=near))
    return gpus


def held(gpu: Gpu, limit: int) -> Holding:
    return Holding("other", Share(gpu.uuid, gpu.index, limit))


def chosen(
    gpus: Sequence[Gpu], holdings: Sequence[Holding], want: Request, rules: Rules | None = None
) -> list[int]:
    found = plan(gpus, holdings, want, rules or Rules())
    assert isinstance(found, Placement)
    return [share.index for share in found.shares]


PAIRS = {(0, 1): 112, (2, 3): 112, (0, 2): 30, (0, 3): 30, (1, 2): 30, (1, 3): 30}
"""Two NVLink bridges on one host bridge."""


def test_two_gpus_are_those_with_a_bridge_between_them() -> None:
    """Though another pair would have been fuller."""
    gpus = node(4, PAIRS)
    assert chosen(gpus, [held(gpus[0], GIB)], Request(count=2)) == [2, 3]
    shared = [held(gpus[0], 70 * GIB), held(gpus[2], 70 * GIB)]
    assert chosen(gpus, shared, Request(memory=(GIB, GIB), count=2)) in ([0, 1], [2, 3])


def test_where_the_best_pair_is_taken_the_next_best_serves() -> None:
    """A set that is linked worse is better than none."""
    gpus = node(4, PAIRS)
    holdings = [held(gpus[1], GIB), held(gpus[2], GIB)]
    assert chosen(gpus, holdings, Request(count=2)) == [0, 3]


def test_a_single_portion_breaks_no_good_set() -> None:
    """It takes the GPU without a bridge, and the next one the other half of a pair that is broken already."""
    gpus = node(3, {(0, 1): 112, (0, 2): 30, (1, 2): 30})
    assert chosen(gpus, [], Request(memory=(GIB,))) == [2]
    gpus = node(4, PAIRS)
    holdings = [held(gpus[2], 79 * GIB)]
    assert chosen(gpus, holdings, Request(memory=(8 * GIB,))) == [3]


def test_of_shared_gpus_the_worst_linked_serves() -> None:
    """So that a job for several finds the good ones."""
    gpus = node(4, {(0, 1): 112, (2, 3): 30})
    holdings = [held(gpus[0], 40 * GIB), held(gpus[2], GIB)]
    assert chosen(gpus, holdings, Request(memory=(GIB,))) == [2]


RANKS = st.sampled_from((0, 10, 30, 50, 104, 112))


@st.composite
def nodes(draw: st.DrawFn) -> tuple[list[Gpu], list[Holding]]:
    """Up to six GPUs of 8 GiB, with any links between them, some of them shared."""
    count = draw(st.integers(2, 6))
    gpus = node(count, {pair: draw(RANKS) for pair in itertools.combinations(range(count), 2)}, total=8 * GIB)
    return gpus, [held(gpu, size * GIB) for gpu in gpus if (size := draw(st.integers(0, 7)))]


@settings(max_examples=300, deadline=None)
@given(
    nodes(),
    st.lists(st.integers(1, 8), min_size=2, max_size=4),
    st.sampled_from(("binpack", "spread", "exclusive")),
)
def test_the_best_linked_set_is_found(
    node: tuple[list[Gpu], list[Holding]], amounts: list[int], strategy: str
) -> None:
    """The oracle tries every choice: worst pair first, then the sum; amounts stay in order; all or nothing."""
    gpus, holdings = node
    taken = {holding.share.uuid: holding.share.limit for holding in holdings}
    want = Request(memory=tuple(n * GIB - 512 * MIB for n in amounts), count=len(amounts))

    def fits(way: Sequence[Gpu]) -> bool:
        alone = strategy == "exclusive"
        return all(
            size <= gpu.grantable - taken.get(gpu.uuid, 0) and not (alone and gpu.uuid in taken)
            for gpu, size in zip(way, want.memory, strict=True)
        )

    ways = [way for way in itertools.combinations(gpus, len(amounts)) if fits(way)]
    if len(amounts) > len(gpus):
        return
    found = plan(gpus, holdings, want, Rules(strategy))
    if not ways:
        assert isinstance(found, Refusal)
        return
    assert isinstance(found, Placement)
    way = [gpus[share.index] for share in found.shares]
    assert tuple(way) in ways
    assert links.quality(way) == max(map(links.quality, ways))


@st.composite
def choices(draw: st.DrawFn) -> tuple[list[Gpu], list[list[bool]], list[int]]:
    """Any links between up to six GPUs; which fits which place; what each costs."""
    count = draw(st.integers(1, 6))
    pairs = {pair: draw(st.integers(0, 3)) for pair in itertools.combinations(range(count), 2)}
    fitting = draw(st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=count, max_size=count))
    return node(count, pairs), fitting, draw(st.lists(st.integers(0, 2), min_size=count, max_size=count))


@settings(max_examples=150, deadline=None)
@given(choices(), st.integers(1, 4))
def test_of_equally_linked_sets_the_first_of_the_cheapest_is_found(
    choice: tuple[list[Gpu], list[list[bool]], list[int]], count: int
) -> None:
    """The oracle tries every choice; of equal ones it takes that of the lowest indexes."""
    gpus, fitting, prices = choice

    def fits(at: int, share: int) -> bool:
        return fitting[at][share]

    def cost(way: Sequence[int]) -> tuple[int, ...]:
        return (sum(prices[at] for at in way),)

    def quality(way: Sequence[int]) -> links.Quality:
        return links.quality([gpus[at] for at in way])

    ways = [
        way
        for way in itertools.combinations(range(len(gpus)), count)
        if all(fits(at, share) for share, at in enumerate(way))
    ]
    best = max(ways, key=lambda way: (quality(way), -cost(way)[0])) if ways else None
    assert links.best_set(links.ranks(gpus), count, fits, cost) == best


def test_a_set_is_as_good_as_its_worst_pair_and_then_as_all_of_them() -> None:
    """A single GPU has no pair; a pair that one of the two doesn't know of counts all the same."""
    gpus = node(3, {(0, 1): 112, (0, 2): 30, (1, 2): 40})
    assert links.quality(gpus) == (30, 182) and links.quality(gpus[:2]) == (112, 112)
    assert links.quality(gpus[:1]) == links.quality([]) == (0, 0)
    one, other = Gpu(0, "GPU-0", "A", GIB, links={"GPU-1": 50}), Gpu(1, "GPU-1", "A", GIB, links={"GPU-1": 9})
    assert links.rank(one, other) == links.rank(other, one) == 50
    assert links.quality(node(2, {})) == (0, 0)


@pytest.mark.parametrize(
    ("ranks", "alike"),
    [({}, True), ({(0, 1): 30, (0, 2): 30, (1, 2): 30}, True), ({(0, 1): 30}, False), ({(1, 2): 30}, False)],
)
def test_gpus_are_alike_where_all_pairs_are(ranks: Mapping[tuple[int, int], int], alike: bool) -> None:
    """One or two GPUs always are."""
    gpus = node(3, ranks)
    assert links.are_alike(links.ranks(gpus)) is alike
    assert all(links.are_alike(links.ranks(gpus[:count])) for count in (0, 1, 2))


@pytest.mark.parametrize("count", [2, 5, 8, 11])
def test_sixteen_unlike_gpus_are_searched_within_bounds(count: int) -> None:
    """The search gives up after a bounded number of steps, with a whole set in hand."""
    sockets = {
        pair: 30 if pair[0] // 4 == pair[1] // 4 else 10 for pair in itertools.combinations(range(16), 2)
    }
    gpus = node(16, sockets)
    found = chosen(gpus, [], Request(count=count))
    assert len(found) == count
    assert links.quality([gpus[at] for at in found])[0] == (30 if count <= 4 else 10)


def test_ranks_prefer_nvlink_to_any_bus() -> None:
    """More links are better, a nearer bus is better, and what NVML doesn't know is nothing."""
    levels = {"a": 10, "b": 20, "c": 30, "d": 40, "e": 50, "f": -1, "g": 50}
    ranks = links.from_nvml(levels, {"g": 4, "f": 0})
    assert sorted(ranks, key=lambda uuid: -ranks[uuid]) == ["g", "a", "b", "c", "d", "e", "f"]
    assert ranks["g"] == 104 and ranks["f"] == 0
    assert links.from_nvml({"a": 10, "b": 60}, {"a": 0, "b": 1, "c": 2}) == {"a": 50, "b": 101, "c": 102}


@settings(deadline=None)
@given(
    st.lists(st.lists(st.sampled_from([0, 9, 50]), min_size=5, max_size=5), min_size=5, max_size=5), st.data()
)
def test_sums_are_those_of_all_pairs(said: list[list[int]], data: st.DataObject) -> None:
    """Whatever the two of a pair say of each other; a GPU has no link to itself."""
    gpus = [
        Gpu(at, f"GPU-{at}", "A", GIB, links={f"GPU-{to}": rank for to, rank in enumerate(row) if rank})
        for at, row in enumerate(said)
    ]
    others = data.draw(st.lists(st.sampled_from(gpus), unique_by=lambda gpu: gpu.uuid))
    assert links.sums(gpus, others) == {
        gpu.uuid: sum(links.rank(gpu, other) for other in others if other.uuid != gpu.uuid) for gpu in gpus
    }
