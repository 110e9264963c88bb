"""Other amounts for a living grant: what fits, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuportion.allocator.devices import Gpu, Holding, Share, free
from gpuportion.allocator.placement import Rules
from gpuportion.allocator.resizing import resized
from gpuportion.errors import GpuportionError
from gpuportion.sizes import MIB

GIB = 1 << 30
RULES = Rules()


def gpu(index: int = 0, total: int = 16 * GIB, **more: str | int) -> Gpu:
    return Gpu(index, f"GPU-{index}", "NVIDIA A100", total, margin=0, **more)  # type: ignore[arg-type]


def share(limit: int, index: int = 0) -> Share:
    return Share(f"GPU-{index}", index, limit)


def resize(
    shares: list[Share],
    *amounts: int,
    others: tuple[Holding, ...] = (),
    used: int = 0,
    beyond: int = 0,
    force: bool = False,
    gpus: tuple[Gpu, ...] = (gpu(), gpu(1)),
) -> list[int]:
    by_uuid = {one.uuid: one for one in gpus}
    held, more = ({"GPU-0": size} if size else {} for size in (used, beyond))
    found = resized(by_uuid, others, shares, amounts, held, more, RULES, force=force)
    assert [(one.uuid, one.index) for one in found] == [(one.uuid, one.index) for one in shares]
    return [one.limit for one in found]


def test_one_amount_is_for_all_gpus_and_several_for_each() -> None:
    """As in a request."""
    both = [share(GIB), share(2 * GIB, 1)]
    assert resize(both, 3 * GIB) == [3 * GIB, 3 * GIB]
    assert resize(both, 3 * GIB, GIB) == [3 * GIB, GIB]


def test_growing_needs_room_where_the_memory_is() -> None:
    """Beside what others have; a grant's own share and what it holds beyond it are no obstacle."""
    other = Holding("vllm", share(10 * GIB))
    assert resize([share(4 * GIB)], 6 * GIB, others=(other,)) == [6 * GIB]
    with pytest.raises(GpuportionError, match="can be granted to it there"):
        resize([share(4 * GIB)], 6 * GIB + 1, others=(other,))
    strangers = gpu(unmanaged=2 * GIB)
    with pytest.raises(GpuportionError, match="can be granted to it there"):
        resize([share(2 * GIB)], 6 * GIB, others=(other,), gpus=(strangers,))
    assert resize([share(2 * GIB)], 6 * GIB, others=(other,), gpus=(strangers,), used=4 * GIB, beyond=2 * GIB)


def test_shrinking_below_use_needs_force() -> None:
    """What is used itself is not below."""
    assert resize([share(4 * GIB)], 2 * GIB, used=2 * GIB) == [2 * GIB]
    with pytest.raises(GpuportionError, match="With --force"):
        resize([share(4 * GIB)], 2 * GIB, used=2 * GIB + 1)
    assert resize([share(4 * GIB)], 2 * GIB, used=3 * GIB, force=True) == [2 * GIB]


@pytest.mark.parametrize(
    ("limit", "tolerated"), [(GIB, 2 * GIB), (2 * GIB - 1, 2 * GIB), (2 * GIB, 0), (3 * GIB, 0)]
)
def test_what_is_used_beyond_a_lowered_limit_is_tolerated(limit: int, tolerated: int) -> None:
    """All that is used then, on the GPU where it is used; nothing where the limit allows it."""
    both, used = [share(4 * GIB), share(4 * GIB, 1)], {"GPU-0": 2 * GIB}
    found = resized({}, (), both, [limit], used, {}, RULES, force=True)
    assert [(one.limit, one.tolerated) for one in found] == [(limit, tolerated), (limit, 0)]


def test_a_gpu_in_trouble_lets_a_grant_shrink_and_not_grow() -> None:
    """Nor one that the driver doesn't show; what it has already it keeps."""
    for gpus in ((LOST,), ()):
        assert resize([share(4 * GIB)], 2 * GIB, gpus=gpus) == [2 * GIB]
        assert resize([share(4 * GIB)], 4 * GIB, gpus=gpus) == [4 * GIB]


def test_no_grant_is_smaller_than_the_minimum() -> None:
    """The minimum itself is granted; what is less, not even by force."""
    assert resize([share(GIB)], RULES.minimum) == [RULES.minimum]
    with pytest.raises(GpuportionError, match="below the least that can be granted"):
        resize([share(GIB)], RULES.minimum - 1, force=True)


LOST = gpu(trouble="it has fallen off the bus")
REFUSED: list[tuple[tuple[int, ...], dict[str, Any], str]] = [  # amounts, what else there is, what is said
    (
        (GIB, GIB),
        {},
        "GP106 --gpu-memory and the container's GPUs contradict each other: 2 amounts for 1 GPUs. Drop one of them.",
    ),
    (
        (100 * MIB,),
        {},
        "GP107 --gpu-memory=100 MiB is below the least that can be granted, 0.27 GB (256 MiB).",
    ),
    (
        (7 * GIB,),
        {"others": (Holding("vllm", share(10 * GIB)),)},
        "GP111 the grant was not changed: it would have 7.52 GB (7168 MiB) of GPU 0 instead of 4.29 GB; "
        "6.44 GB can be granted to it there. Write at most 6442M, or end another container (`gpuportion ps`).",
    ),
    (
        (7 * GIB,),
        {"gpus": (gpu(unmanaged=16 * GIB),)},
        "GP111 the grant was not changed: it would have 7.52 GB (7168 MiB) of GPU 0 instead of 4.29 GB; "
        "0.00 GB can be granted to it there.",
    ),
    (
        (7 * GIB,),
        {"gpus": (LOST,)},
        "GP111 the grant was not changed: it would have 7.52 GB (7168 MiB) of GPU 0 instead of 4.29 GB; "
        "GPU 0 can serve nobody: it has fallen off the bus.",
    ),
    (
        (7 * GIB,),
        {"gpus": ()},
        "GP111 the grant was not changed: it would have 7.52 GB (7168 MiB) of GPU 0 instead of 4.29 GB; "
        "GPU 0 can serve nobody: the driver does not show it now.",
    ),
    (
        (2 * GIB,),
        {"used": 3 * GIB},
        "GP111 the grant was not changed: it would have 2.15 GB (2048 MiB) of GPU 0 and uses 3.22 GB (3072 MiB) "
        "there; that is more. With --force nothing is ended, and it gets nothing new until it uses less.",
    ),
]


@pytest.mark.parametrize(("amounts", "there", "says"), REFUSED)
def test_a_refusal_has_its_numbers_and_a_way_out(
    amounts: tuple[int, ...], there: dict[str, Any], says: str
) -> None:
    """Of a grant with 4 GiB of GPU 0."""
    with pytest.raises(GpuportionError) as refused:
        resize([share(4 * GIB)], *amounts, **there)
    assert refused.value.text == says


@given(
    st.lists(st.integers(1, 40).map(lambda n: n * 256 * MIB), max_size=4),
    st.integers(1, 80),
    st.integers(1, 80),
)
def test_nothing_is_ever_promised_twice(others: list[int], before: int, after: int) -> None:
    """Whatever is granted beside it, the sum stays within what there is."""
    one, mine = gpu(), share(before * 256 * MIB)
    holdings: tuple[Holding, ...] = (Holding("me", mine),) if mine.limit <= one.grantable else ()
    for limit in others:
        if limit <= free(one, holdings):
            holdings += (Holding("other", share(limit)),)
    if not holdings or holdings[0].holder != "me":
        return
    try:
        (limit,) = resize([mine], after * 256 * MIB, others=holdings[1:], gpus=(one,))
    except GpuportionError:
        assert after * 256 * MIB > free(one, holdings[1:])
        return
    assert limit + sum(held.share.limit for held in holdings[1:]) <= one.grantable
