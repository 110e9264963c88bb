"""Placement against a brute-force oracle, and its sentences."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuportion import sizes
from gpuportion.allocator.devices import MINIMUM, Gpu, Held, Holding, Share, free
from gpuportion.allocator.no_room import Refusal, suggestion
from gpuportion.allocator.placement import EXCLUSIVE, SPREAD, Placement, Rules, plan
from gpuportion.allocator.pool import Pool
from gpuportion.errors import GpuportionError
from gpuportion.shim.request import Request
from gpuportion.sizes import MIB

GB = 10**9


def gpu(index: int, total: int = 80 << 30, **more: int | str | Decimal) -> Gpu:
    values = {"model": "NVIDIA A100-SXM4-80GB", "reserved": 700 * MIB, **more}
    return Gpu(index=index, uuid=f"GPU-0000000{index}-0000-0000-0000-000000000000", total=total, **values)  # type: ignore[arg-type]


def held(on: Gpu, limit: int, holder: str = "other", exclusive: bool = False) -> Holding:
    return Holding(holder, Share(on.uuid, on.index, limit, exclusive))


def placed(gpus: Sequence[Gpu], holdings: Sequence[Holding], want: Request) -> list[int]:
    found = plan(gpus, holdings, want)
    assert isinstance(found, Placement)
    return [share.index for share in found.shares]


SIZES = st.integers(1, 12).map(lambda n: n * 128 * MIB)


@st.composite
def nodes(draw: st.DrawFn) -> tuple[list[Gpu], list[Holding]]:
    """Up to four small GPUs, partly granted, never beyond what they have."""
    gpus = [
        gpu(
            index,
            total=draw(st.integers(0, 40)) * 128 * MIB,
            reserved=0,
            margin=0,
            unmanaged=draw(st.sampled_from((0, 256 * MIB))),
        )
        for index in range(draw(st.integers(1, 4)))
    ]
    holdings: list[Holding] = []
    for one in gpus:
        for limit in draw(st.lists(SIZES, max_size=3)):
            if limit <= free(one, holdings):
                holdings.append(held(one, limit))
    return gpus, holdings


@st.composite
def wants(draw: st.DrawFn) -> Request:
    count = draw(st.integers(1, 3))
    kind = draw(st.sampled_from(("sizes", "fraction", "whole")))
    if kind == "sizes":
        return Request(memory=tuple(draw(st.lists(SIZES, min_size=count, max_size=count))), count=count)
    if kind == "fraction":
        return Request(fraction=Decimal(draw(st.integers(1, 10000))) / 10000, count=count)
    return Request(count=count)


def need(want: Request, on: Gpu, k: int) -> int:
    if want.memory:
        return want.memory[k]
    if want.fraction is not None:
        return int(want.fraction * on.grantable) // MIB * MIB
    return on.grantable


def every_way(gpus: Sequence[Gpu], holdings: Sequence[Holding], want: Request) -> list[tuple[Gpu, ...]]:
    """All choices of GPUs in rising order on which the request fits: what a reader would try by hand."""

    def fits(k: int, on: Gpu) -> bool:
        empty = all(holding.share.uuid != on.uuid for holding in holdings)
        return MINIMUM <= need(want, on, k) <= free(on, holdings) and (empty or not want.whole)

    ways = itertools.combinations(gpus, want.count)
    return [way for way in ways if all(fits(k, on) for k, on in enumerate(way))]


@settings(max_examples=400, deadline=None)
@given(nodes(), wants())
def test_it_finds_a_place_exactly_where_there_is_one(
    node: tuple[list[Gpu], list[Holding]], want: Request
) -> None:
    """All or nothing, never beyond what is free, and as little spread as any way would be."""
    gpus, holdings = node
    ways = every_way(gpus, holdings, want)
    try:
        found = plan(gpus, holdings, want)
    except GpuportionError as impossible:
        assert impossible.code == "GP107" and not ways
        return
    if isinstance(found, Refusal):
        assert not ways
        assert found.error("x").code == "GP101"
        return
    by_index = {one.index: one for one in gpus}
    chosen = tuple(by_index[share.index] for share in found.shares)
    assert chosen in ways
    assert [share.limit for share in found.shares] == [need(want, on, k) for k, on in enumerate(chosen)]

    def unshared(way: Sequence[Gpu]) -> int:
        return sum(all(holding.share.uuid != on.uuid for holding in holdings) for on in way)

    def left(way: Sequence[Gpu]) -> int:
        return sum(free(on, holdings) - need(want, on, k) for k, on in enumerate(way))

    if not want.whole:
        assert (unshared(chosen), left(chosen)) == min((unshared(way), left(way)) for way in ways)
    after = [*holdings, *(Holding("new", share) for share in found.shares)]
    for one in gpus:
        assert (
            sum(holding.share.limit for holding in after if holding.share.uuid == one.uuid) <= one.grantable
        )


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 200_000 * MIB), st.integers(1, 10_000))
def test_parts_of_a_gpu_that_add_up_to_one_always_fit(total: int, parts: int) -> None:
    """Two halves, three thirds rounded down to four decimals, and so on."""
    fraction = Decimal(10_000 // parts) / 10_000
    one = gpu(0, total=total, reserved=0, margin=0)
    each = int(fraction * one.grantable) // MIB * MIB
    assert parts * each <= one.grantable


@given(st.integers(0, 100 * GB))
def test_a_suggestion_fits_and_can_be_granted(room: int) -> None:
    """What the message tells the user to try would have been granted."""
    text = suggestion(room)
    if text:
        assert MINIMUM <= sizes.parse(text) <= room
    else:
        assert room < MINIMUM + 10**7 + MIB


def test_small_grants_share_a_card() -> None:
    """The second container joins the first, though another GPU is empty."""
    gpus = [gpu(0), gpu(1)]
    assert placed(gpus, [held(gpus[1], 8 * GB)], Request(memory=(4 * GB,))) == [1]


def test_of_the_shared_ones_the_fullest_that_fits() -> None:
    """So that a large grant still finds room."""
    gpus = [gpu(0), gpu(1), gpu(2)]
    holdings = [held(gpus[0], 10 * GB), held(gpus[1], 60 * GB), held(gpus[2], 84 * GB)]
    assert placed(gpus, holdings, Request(memory=(4 * GB,))) == [1]


def test_a_place_is_found_by_sums_alone() -> None:
    """Each holding is looked at by a refusal only, which names it."""
    gpus = [gpu(0), gpu(1)]
    holdings = [held(gpus[1], 60 * GB), held(gpus[0], 84 * GB)]
    small, large = Request(memory=(4 * GB,)), Request(memory=(40 * GB,))

    def each() -> Iterable[Holding]:
        raise AssertionError("each holding was looked at")

    assert plan(gpus, Held(Held.of(holdings).loads, each), small) == plan(gpus, holdings, small)
    refused = plan(gpus, Held.of(holdings), large)
    assert isinstance(refused, Refusal) and refused == plan(gpus, holdings, large)
    assert refused.holdings == (holdings[0],)


def test_a_share_says_what_a_context_takes_on_its_gpu() -> None:
    """By the GPU's model, each share its own; nothing where nobody says."""
    gpus = [gpu(0), gpu(1, model="NVIDIA H100 80GB HBM3")]
    want = Request(memory=(GB, GB), count=2)
    found = plan(gpus, [], want, context=lambda model: len(model) * MIB)
    assert isinstance(found, Placement)
    assert [share.context for share in found.shares] == [len(one.model) * MIB for one in gpus]
    unsaid = plan(gpus, [], want)
    assert isinstance(unsaid, Placement) and [share.context for share in unsaid.shares] == [0, 0]


def test_gpus_that_were_put_together_before_serve_as_well() -> None:
    """The same place, whatever was asked of them in the meantime."""
    gpus = [gpu(0), gpu(1), gpu(2, trouble="it is ill")]
    pool, small = Pool(gpus), Request(memory=(4 * GB,))
    assert plan(pool, [], small) == plan(gpus, [], small)
    assert plan(pool, [held(gpus[1], GB)], small) == plan(gpus, [held(gpus[1], GB)], small)
    assert plan(pool, [], small) == plan(gpus, [], small)


def test_a_part_goes_where_it_leaves_the_least() -> None:
    """What it takes is a part of each GPU's own memory, so the one with more left may be the fuller one after it."""
    gpus = [gpu(0, total=10 << 30, reserved=0, margin=0), gpu(1, total=20 << 30, reserved=0, margin=0)]
    holdings = [held(gpus[0], 5 << 30), held(gpus[1], 14 << 30)]
    assert placed(gpus, holdings, Request(fraction=Decimal("0.3"))) == [1]
    assert placed(gpus, holdings, Request(fraction=Decimal("0.4"))) == [0]


def test_of_many_gpus_that_are_alike_the_shared_ones_serve() -> None:
    """Wherever they are: the search that is bounded is for GPUs that are linked unlike each other."""
    gpus = [gpu(index) for index in range(16)]
    holdings = [held(one, GB) for one in gpus[8:]]
    assert placed(gpus, holdings, Request(memory=(GB,) * 8, count=8)) == list(range(8, 16))


def test_amounts_keep_their_order() -> None:
    """The container's first GPU has the first amount, also where another order would be a better fit."""
    gpus = [gpu(0), gpu(1, total=10 << 30)]
    found = plan(gpus, [], Request(memory=(4 * GB, 8 * GB), count=2))
    assert isinstance(found, Placement)
    assert [(share.index, share.limit) for share in found.shares] == [(0, 4 * GB), (1, 8 * GB)]
    assert isinstance(plan(gpus, [], Request(memory=(4 * GB, 40 * GB), count=2)), Refusal)


def test_a_whole_gpu_is_alone() -> None:
    """Nothing is put beside it, and it is not put beside anything; one without strangers is preferred."""
    gpus = [gpu(0, unmanaged=GB), gpu(1)]
    found = plan(gpus, [], Request())
    assert isinstance(found, Placement)
    assert found.shares == (Share(gpus[1].uuid, 1, gpus[1].grantable, exclusive=True),)
    taken = [held(gpus[1], found.shares[0].limit, exclusive=True)]
    assert free(gpus[1], taken) == 0
    assert placed(gpus, taken, Request(memory=(GB,))) == [0]


def test_an_exclusive_gpu_stays_so_when_strangers_leave() -> None:
    """Its grant was all that there was; what is given back by others later is not for third parties."""
    before, after = gpu(0, unmanaged=40 * GB), gpu(0)
    taken = [held(before, before.grantable, exclusive=True)]
    assert free(after, taken) == 0


@pytest.mark.parametrize(
    ("select", "indexes"),
    [
        (("1",), [1]),
        (("GPU-00000001-0000-0000-0000-000000000000",), [1]),
        (("00000001-0000-0000-0000-000000000000",), [1]),
        (("*h100*",), [1]),
        (("*A100*",), [0]),
        (("7", "*H100*"), [1]),
        (("*",), [0]),
    ],
)
def test_gpus_are_selected_by_index_uuid_or_model(select: tuple[str, ...], indexes: list[int]) -> None:
    """Any of several may serve."""
    gpus = [gpu(0), gpu(1, model="NVIDIA H100 80GB HBM3")]
    assert placed(gpus, [], Request(memory=(GB,), select=select)) == indexes


def refusal_of(gpus: Sequence[Gpu], holdings: Sequence[Holding], want: Request) -> str:
    """The text, whichever way it is refused."""
    try:
        found = plan(gpus, holdings, want)
    except GpuportionError as refused:
        return refused.text
    assert isinstance(found, Refusal)
    return found.error('container "train"').text


def test_a_full_gpu_says_who_has_it_and_what_would_fit() -> None:
    """The message of the contract, number by number."""
    one = gpu(0, total=16 * GB, reserved=700_000_000, margin=0)
    holdings = [held(one, 5 * GB, "vllm"), held(one, 7_900_000_000, "jupyter-ann")]
    assert refusal_of([one], holdings, Request(memory=(4 * GB // MIB * MIB,))) == (
        'GP101 container "train" was not started: it asks for 4.00 GB (3814 MiB) of GPU memory; '
        "GPU 0 has 2.40 GB free to grant.\n"
        "Granted now on GPU 0: jupyter-ann 7.90 GB, vllm 5.00 GB; 0.70 GB is reserved by the driver.\n"
        "Try GPU_MEMORY_LIMIT=2G, or `gpuportion ps`."
    )


def test_another_gpu_is_named_where_only_the_choice_stands_in_the_way() -> None:
    """And memory of processes without a grant is told apart."""
    gpus = [gpu(0, unmanaged=80 * GB), gpu(1)]
    text = refusal_of(gpus, [], Request(memory=(40 * GB,), select=("0",)))
    assert "80.00 GB is held without a grant or beyond one" in text
    assert "Try GPU_MEMORY_LIMIT=5G, another GPU, or `gpuportion ps`." in text


@pytest.mark.parametrize(
    ("want", "text"),
    [
        (
            Request(memory=(100 * MIB,)),
            "GP107 GPU_MEMORY_LIMIT=100 MiB is below the least that can be granted, 0.27 GB (256 MiB). Write 256Mi or",
        ),
        (Request(memory=(100 * GB,)), "is more than the largest GPU can grant: GPU 0 (NVIDIA A100"),
        (Request(fraction=Decimal("0.001")), "GP107 GPU_FRACTION=0.001 of GPU 0 is below the least"),
        (Request(count=3), "GP107 GPU_COUNT=3 is more than the 2 GPUs"),
        (
            Request(memory=(GB,), select=("*H100*",)),
            "GP107 GPU_SELECT=*H100* matches no GPU of this node. It has 0 (",
        ),
        (Request(compute=30), "GP109 30 % of a GPU's compute cannot be served"),
        (Request(mig="1g.10gb"), "GP109 the MIG profile 1g.10gb cannot be served"),
    ],
)
def test_what_can_never_be_served_is_said_at_once(want: Request, text: str) -> None:
    """However empty the node is."""
    assert text in refusal_of([gpu(0), gpu(1)], [], want)


def test_a_gpu_in_trouble_serves_nobody() -> None:
    """Another one is taken; where there is none, the trouble is told."""
    lost = gpu(0, trouble="it has fallen off the bus")
    assert placed([lost, gpu(1)], [], Request(memory=(GB,))) == [1]
    assert "GP302" in refusal_of([lost], [], Request(memory=(GB,)))
    assert "fallen off the bus" in refusal_of([lost], [], Request(memory=(GB,)))


def test_many_gpus_are_chosen_from_quickly() -> None:
    """Eight of sixteen, each with its own amount: no search through all combinations."""
    gpus = [gpu(index) for index in range(16)]
    sizes_wanted = tuple((index + 1) * GB for index in range(8))
    assert len(placed(gpus, [], Request(memory=sizes_wanted, count=8))) == 8


def test_more_is_promised_only_by_overcommit() -> None:
    """All grants together may be half as much again; one alone is never more than there is, nor a whole GPU shared."""
    one = gpu(0, total=16 << 30, reserved=0, margin=0, overcommit=Decimal("1.5"))
    large = Request(memory=(12 << 30,))
    assert placed([one], [held(one, 12 << 30)], large) == [0]
    assert isinstance(plan([one], [held(one, 13 << 30)], large), Refusal)
    assert isinstance(plan([one], [held(one, 1 << 30)], Request()), Refusal)
    with pytest.raises(GpuportionError, match="more than the largest GPU can grant"):
        plan([one], [], Request(memory=(17 << 30,)))
    assert free(one, []) == 16 << 30


def test_spread_takes_the_gpu_with_the_fewest_grants() -> None:
    """Of equal ones that with the most room."""
    gpus = [gpu(0), gpu(1), gpu(2)]
    holdings = [held(gpus[0], GB), held(gpus[1], 2 * GB)]
    spread = Rules(SPREAD)
    for want, index in ((Request(memory=(GB,)), 2), (Request(memory=(80 * GB,)), 2)):
        found = plan(gpus, holdings, want, spread)
        assert isinstance(found, Placement) and found.shares[0].index == index
    found = plan(gpus[:2], holdings, Request(memory=(GB,)), spread)
    assert isinstance(found, Placement) and found.shares[0].index == 0


def test_exclusive_portions_share_with_nobody() -> None:
    """The limit is what was asked for; the smallest GPU that holds it serves; the rest of it stays empty."""
    gpus = [gpu(0), gpu(1, total=16 << 30), gpu(2)]
    rules = Rules(EXCLUSIVE)
    found = plan(gpus, [], Request(memory=(GB,)), rules)
    assert isinstance(found, Placement)
    assert found.shares == (Share(gpus[1].uuid, 1, GB, exclusive=True),)
    taken = [Holding("one", found.shares[0]), held(gpus[0], GB), held(gpus[2], GB)]
    full = plan(gpus, taken, Request(memory=(GB,)), rules)
    assert isinstance(full, Refusal)
    assert "GPU_MEMORY_LIMIT=" not in full.error("it").text and "is in use" in full.error("it").text


def test_the_minimum_is_the_administrators() -> None:
    """Higher or lower than the usual one."""
    small = Request(memory=(128 * MIB,))
    assert isinstance(plan([gpu(0)], [], small, Rules(minimum=64 * MIB)), Placement)
    with pytest.raises(GpuportionError, match="Write 1024Mi or more"):
        plan([gpu(0)], [], Request(memory=(512 * MIB,)), Rules(minimum=1024 * MIB))
