"""What fits where on a board, against counting every set of places."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.mig_boards import A30, A100_40, H100_80, RTX_PRO_6000, profiles

from gpuportion.allocator.mig.geometry import Geometry, first, geometry_of, mask
from gpuportion.allocator.mig.profiles import Engines, Profile

PLAIN = Profile(7, ("1g.5gb",), memory=4864, compute=1, size=1, starts=(0,), most=1)


@given(st.integers(0, 20), st.integers(1, 20))
def test_a_mask_is_its_slices_and_tells_where_it_begins(start: int, size: int) -> None:
    """Bit 0 is the first slice."""
    place = mask(start, size)
    assert [k for k in range(64) if place >> k & 1] == list(range(start, start + size))
    assert first(place) == start


@pytest.mark.parametrize(
    ("table", "slices", "compute", "media"),
    [
        (A30, 4, 4, (4, 0, 1, 1)),
        (A100_40, 8, 7, (5, 0, 1, 1)),
        (H100_80, 8, 7, (7, 0, 7, 1)),
        (RTX_PRO_6000, 12, 4, (4, 4, 4, 1)),
    ],
)
def test_a_board_has_what_its_profiles_take(
    table: str, slices: int, compute: int, media: tuple[int, ...]
) -> None:
    """Memory slices, compute slices and media engines (NVDEC, NVENC, NVJPG, OFA) of real ones."""
    board = Geometry(reversed(profiles(table)))
    assert (board.slices, board.compute, board.media) == (slices, compute, media)
    assert [board.by_id[one.id] for one in board.profiles] == list(board.profiles)
    assert list(board.profiles) == sorted(profiles(table), key=lambda one: one.rank)


def test_profiles_in_the_same_places_are_one_shape() -> None:
    """From the smallest on; each shape with its size in slices."""
    board = Geometry(profiles(A100_40))
    assert board.sizes == (1, 2, 2, 4, 4, 8)
    assert [board.shape_of[id] for id in (19, 20, 15, 14, 9, 5, 0)] == [0, 0, 1, 2, 3, 4, 5]
    assert board.shapes[3] == board.masks[9] == (0b1111, 0b11110000)


def test_a_board_without_profiles_or_places_has_no_room() -> None:
    """A driver that tells nothing is no crash."""
    empty = Geometry([])
    assert (empty.slices, empty.compute, empty.media, empty.sizes) == (0, 0, (0, 0, 0, 0), ())
    nowhere = Geometry([replace(PLAIN, starts=())])
    assert (nowhere.slices, nowhere.sizes) == (0, (0,)) and not nowhere.has_room(nowhere.profiles[0], 0)


def test_engines_are_counted_for_as_many_as_may_live_at_once() -> None:
    """At least for one, whatever the driver says of its number; of an unknown profile none are known."""
    engines = Engines(1, 2, 3, 4)
    for most, media in ((0, (1, 2, 3, 4)), (1, (1, 2, 3, 4)), (3, (3, 6, 9, 12))):
        board = Geometry([replace(PLAIN, most=most, engines=engines), replace(PLAIN, id=8)])
        assert board.media == media
        assert board.engines(7) == (1, 2, 3, 4) and board.engines(8) == board.engines(99) == (0, 0, 0, 0)


@given(st.lists(st.integers(0, 7), max_size=6), st.integers(1, 4), st.integers(0, (1 << 11) - 1))
def test_room_is_the_most_places_that_fit_at_once(starts: list[int], size: int, taken: int) -> None:
    """Wherever a profile may begin, told in any order; it is counted once."""
    board = Geometry([replace(PLAIN, starts=tuple(starts), size=size)])
    free = [place for start in set(starts) if not (place := mask(start, size)) & taken]
    most = next(
        count
        for count in range(len(free), -1, -1)
        if any(not any(a & b for a, b in combinations(some, 2)) for some in combinations(free, count))
    )
    assert board.room(taken) == (most,) and board.room(taken) is board.room(taken)
    assert board.has_room(board.profiles[0], taken) == (most > 0)


def test_gpus_of_one_model_share_their_tables() -> None:
    """A Geometry is compared by identity."""
    assert geometry_of(profiles(A30)) is geometry_of(profiles(A30)) is not geometry_of(profiles(A100_40))
