"""Requests that a node could never serve, word by word, and the numbers that are just possible."""

from __future__ import annotations

from decimal import Decimal

import pytest

from gpuportion.allocator.devices import MINIMUM, Gpu, Holding, Share
from gpuportion.allocator.no_room import Refusal
from gpuportion.allocator.placement import EXCLUSIVE, SPREAD, Placement, Rules, plan
from gpuportion.errors import GpuportionError
from gpuportion.shim.request import Request
from gpuportion.sizes import MIB

GB = 10**9


def gpu(index: int, total: int, model: str = "NVIDIA A100", unmanaged: int = 0, trouble: str = "") -> Gpu:
    uuid = f"GPU-{index}"
    return Gpu(
        index, uuid, model, total, reserved=700 * MIB, unmanaged=unmanaged, margin=64 * MIB, trouble=trouble
    )


NODE = [gpu(0, 16 << 30), gpu(1, 24 << 30, "NVIDIA H100", unmanaged=GB)]

IMPOSSIBLE: list[tuple[Request, str]] = [
    (
        Request(memory=(100 * MIB, 300 * MIB), count=2),
        "GP107 GPU_MEMORY_LIMIT=100 MiB is below the least that can be granted, 0.27 GB (256 MiB). "
        "Write 256Mi or more.",
    ),
    (
        Request(memory=(24 << 30, GB), count=2),
        "GP107 GPU_MEMORY_LIMIT=25.77 GB (24576 MiB) is more than the largest GPU can grant: GPU 1 (NVIDIA H100) "
        "has 24.97 GB (23811 MiB). Write GPU_FRACTION=1 for all of it.",
    ),
    (
        Request(fraction=Decimal("0.001")),
        "GP107 GPU_FRACTION=0.001 of GPU 1 is below the least that can be granted, 0.27 GB (256 MiB). "
        "Write GPU_MEMORY_LIMIT=256Mi or more.",
    ),
    (
        Request(count=3),
        "GP107 GPU_COUNT=3 is more than the 2 GPUs that may serve this request: the node has no others for portions. "
        "Write GPU_COUNT=2 or less.",
    ),
    (
        Request(count=2, select=("1",)),
        "GP107 GPU_COUNT=2 is more than the 1 GPU that may serve this request: GPU_SELECT leaves 1 of 2. "
        "Write GPU_COUNT=1.",
    ),
    (
        Request(memory=(GB,), select=("*V100*", "9")),
        "GP107 GPU_SELECT=*V100*,9 matches no GPU of this node. It has 0 (NVIDIA A100, GPU-0), "
        "1 (NVIDIA H100, GPU-1).",
    ),
    (
        Request(compute=30),
        "GP109 30 % of a GPU's compute cannot be served by this node: MIG alone divides compute, on GPUs with the MIG "
        "role and for containers. Drop GPU_COMPUTE, or give a GPU the role: gpuportion node set-role --mig-enabled",
    ),
    (
        Request(mig="1g.10gb"),
        "GP109 the MIG profile 1g.10gb cannot be served by this node: GPU_ROLE=fraction keeps it from MIG. "
        "Drop one of them.",
    ),
]


@pytest.mark.parametrize(("want", "text"), IMPOSSIBLE)
def test_what_can_never_be_served_is_said_word_by_word(want: Request, text: str) -> None:
    """With the numbers of the GPU that comes nearest."""
    with pytest.raises(GpuportionError) as refusal:
        plan(NODE, [], want)
    assert refusal.value.text == text


def test_every_trouble_is_told_where_all_gpus_are_in_trouble() -> None:
    """Of the selected ones alone."""
    node = [gpu(0, 16 << 30, trouble="it is lost"), gpu(1, 16 << 30, trouble="it is hot"), gpu(2, 16 << 30)]
    with pytest.raises(GpuportionError) as refusal:
        plan(node, [], Request(select=("0", "1")))
    assert refusal.value.code == "GP302"
    assert "limit: GPU 0: it is lost; GPU 1: it is hot. " in refusal.value.text


def test_why_there_are_no_more_gpus_is_told() -> None:
    """Those that were not selected, and those that are ill."""
    node = [
        gpu(0, 16 << 30),
        gpu(1, 16 << 30, trouble="hot"),
        gpu(2, 16 << 30, trouble="lost"),
        gpu(3, 16 << 30),
    ]
    for select, why in (
        ((), "GPU 1, GPU 2 are ill (`gpuportion node` says why). Write GPU_COUNT=2 or less."),
        (
            ("0", "1"),
            "GPU_SELECT leaves 2 of 4 and GPU 1 is ill (`gpuportion node` says why). Write GPU_COUNT=1.",
        ),
    ):
        with pytest.raises(GpuportionError) as refusal:
            plan(node, [], Request(count=3, select=select))
        assert refusal.value.text.endswith(f"that may serve this request: {why}")


def test_the_numbers_in_a_rule_are_themselves_possible() -> None:
    """The least, all that there is, and what would be there without strangers: then there is no room just now."""
    one = NODE[0]
    for size in (MINIMUM, one.grantable):
        found = plan([one], [], Request(memory=(size,)))
        assert isinstance(found, Placement) and found.shares == (Share("GPU-0", 0, size),)
    held = gpu(0, 16 << 30, unmanaged=GB)
    assert isinstance(plan([held], [], Request(memory=(held.grantable + GB,))), Refusal)
    crowded = gpu(1, 24 << 30, unmanaged=20 << 30)
    assert isinstance(plan([one, crowded], [], Request(memory=(20 << 30,))), Refusal)
    small = gpu(0, 764 * MIB + 2 * MINIMUM)
    found = plan([small], [], Request(fraction=Decimal("0.5")))
    assert isinstance(found, Placement) and found.shares[0].limit == MINIMUM


def test_a_portion_of_the_node_as_it_is_read_in_any_order() -> None:
    """Shares rise by index, however the GPUs were listed."""
    found = plan([NODE[1], NODE[0]], [], Request(memory=(GB, 2 * GB), count=2))
    assert isinstance(found, Placement)
    assert [(share.index, share.limit) for share in found.shares] == [(0, GB), (1, 2 * GB)]


def test_spread_prefers_room_to_links_and_links_to_the_index() -> None:
    """Of GPUs with as many grants as each other the one with the most room left, of these the first."""
    rules = Rules(SPREAD)
    node = [gpu(0, 16 << 30), gpu(1, 24 << 30), gpu(2, 24 << 30)]
    found = plan(node, [], Request(memory=(GB,)), rules)
    assert isinstance(found, Placement) and found.shares[0].index == 1
    holdings = [Holding("a", Share("GPU-1", 1, GB)), Holding("b", Share("GPU-2", 2, GB))]
    found = plan(node, holdings, Request(memory=(GB,)), rules)
    assert isinstance(found, Placement) and found.shares[0].index == 0


def test_an_exclusive_fraction_is_alone_on_its_gpu() -> None:
    """As much as was asked for, and nobody beside it."""
    found = plan(NODE[:1], [], Request(fraction=Decimal("0.5")), Rules(EXCLUSIVE))
    assert isinstance(found, Placement)
    limit = NODE[0].grantable // 2 // MIB * MIB
    assert found.shares == (Share("GPU-0", 0, limit, exclusive=True),)


UNEVEN = [gpu(2, 12 << 30), gpu(0, 8 << 30), gpu(1, 16 << 30)]
"""In no order; 764 MiB of each can't be granted."""
TAKEN = [
    Holding("a", Share("GPU-1", 1, 1 << 30)),
    Holding("b", Share("GPU-1", 1, 3 << 30)),
    Holding("c", Share("GPU-0", 0, 1 << 30)),
]


def test_a_refusal_has_the_numbers_of_the_gpu_with_the_most_room() -> None:
    """Of two with as much the first; its grants, the largest first; an amount that all wanted GPUs would have."""
    want = Request(memory=(11_000 * MIB,) * 3, count=3)
    assert plan(UNEVEN, TAKEN, want) == Refusal(
        want,
        best=UNEVEN[2],
        best_free=11_524 * MIB,
        fitting=2,
        eligible=3,
        holdings=(TAKEN[1], TAKEN[0]),
        suggested="6G",
    )


def test_a_refusal_of_whole_gpus_suggests_a_part_of_one() -> None:
    """Only a GPU that nobody has would do; a portion beside others may be what was meant."""
    everywhere = [*TAKEN, Holding("d", Share("GPU-2", 2, 2 << 30))]
    refused = plan(UNEVEN, everywhere, Request(count=2))
    assert isinstance(refused, Refusal)
    assert (refused.alone, refused.fitting, refused.suggested) == (True, 0, "9G")
    shared_with_nobody = plan(UNEVEN, everywhere, Request(memory=(4 << 30,)), Rules(EXCLUSIVE))
    assert isinstance(shared_with_nobody, Refusal)
    assert (shared_with_nobody.alone, shared_with_nobody.suggested) == (True, "")


@pytest.mark.parametrize(("minimum", "suggested"), [(MINIMUM, "2G"), (2 << 30, "")])
def test_nothing_below_the_administrators_minimum_is_suggested(minimum: int, suggested: str) -> None:
    """It would be refused in its turn."""
    small = gpu(0, 764 * MIB + (4 << 30))
    refused = plan(
        [small],
        [Holding("a", Share("GPU-0", 0, 2 << 30))],
        Request(memory=(3 << 30,)),
        Rules(minimum=minimum),
    )
    assert isinstance(refused, Refusal) and refused.suggested == suggested


@pytest.mark.parametrize(
    ("select", "count", "trouble", "taken", "elsewhere"),
    [
        (("0",), 1, "", 0, True),
        (("0",), 1, "", 12 << 30, False),
        (("0", "1"), 2, "", 0, True),
        (("0", "1"), 2, "it is lost", 0, False),
        ((), 3, "", 0, False),
    ],
)
def test_another_gpu_is_suggested_where_the_choice_alone_stands_in_the_way(
    select: tuple[str, ...], count: int, trouble: str, taken: int, elsewhere: bool
) -> None:
    """Healthy, with room, and as many as are wanted."""
    node = [gpu(0, 16 << 30), gpu(1, 16 << 30), gpu(2, 16 << 30, trouble=trouble)]
    holdings = [Holding("a", Share("GPU-0", 0, 12 << 30))]
    holdings += [Holding("b", Share(one.uuid, one.index, taken)) for one in node[1:] if taken]
    refused = plan(node, holdings, Request(memory=(8 << 30,) * count, count=count, select=select))
    assert isinstance(refused, Refusal) and refused.elsewhere is elsewhere
