"""Other amounts for a living grant: what fits, and what is refused."""

from __future__ import annotations

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
    known = {"GPU-0": used}
    found = resized(by_uuid, others, shares, amounts, known, {"GPU-0": beyond}, RULES, force=force)
    return [one.limit for one in found]


def test_one_amount_is_for_all_gpus_and_several_for_each() -> None:
    """As in a request."""
    both = [share(GIB), share(2 * GIB, 1)]
    assert resize(both, 3 * GIB) == [3 * GIB, 3 * GIB]
    assert resize(both, 3 * GIB, GIB) == [3 * GIB, GIB]
    with pytest.raises(GpuportionError, match="3 amounts for 2 GPUs"):
        resize(both, GIB, GIB, GIB)


def test_growing_needs_room_where_the_memory_is() -> None:
    """Beside what others have; a grant's own share and what it holds beyond it are no obstacle."""
    other = Holding("vllm", share(10 * GIB))
    assert resize([share(4 * GIB)], 6 * GIB, others=(other,)) == [6 * GIB]
    with pytest.raises(
        GpuportionError, match=r"GP111|6\.44 GB can be granted to it there\. Write at most 6442M"
    ):
        resize([share(4 * GIB)], 7 * GIB, others=(other,))
    strangers = gpu(unmanaged=2 * GIB)
    with pytest.raises(GpuportionError, match="can be granted to it there"):
        resize([share(2 * GIB)], 6 * GIB, others=(other,), gpus=(strangers,))
    assert resize([share(2 * GIB)], 6 * GIB, others=(other,), gpus=(strangers,), used=4 * GIB, beyond=2 * GIB)


def test_shrinking_below_use_needs_force() -> None:
    """The message has both numbers."""
    assert resize([share(4 * GIB)], 2 * GIB, used=2 * GIB) == [2 * GIB]
    with pytest.raises(GpuportionError, match=r"2\.15 GB \(2048 MiB\) of GPU 0 and uses 3\.22 GB .* --force"):
        resize([share(4 * GIB)], 2 * GIB, used=3 * GIB)
    assert resize([share(4 * GIB)], 2 * GIB, used=3 * GIB, force=True) == [2 * GIB]


def test_a_gpu_in_trouble_lets_a_grant_shrink_and_not_grow() -> None:
    """Nor one that the driver doesn't show."""
    lost = gpu(trouble="it has fallen off the bus")
    assert resize([share(4 * GIB)], 2 * GIB, gpus=(lost,)) == [2 * GIB]
    for gpus, why in (((lost,), "fallen off the bus"), ((), "does not show it")):
        with pytest.raises(GpuportionError, match=why):
            resize([share(4 * GIB)], 5 * GIB, gpus=gpus)


def test_no_grant_is_smaller_than_the_minimum() -> None:
    """With force neither."""
    with pytest.raises(GpuportionError, match="below the least that can be granted"):
        resize([share(GIB)], 100 * MIB, force=True)


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
