"""Names and sizes of MIG profiles: what a request means on a board."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.mig_boards import A30, A100_40, H100_80, RTX_PRO_6000, profiles

from gpuportion.allocator.mig.asks import Ask, ask_of, called, fitting
from gpuportion.allocator.mig.fragmentation import WINDOW, RecentMix, Score
from gpuportion.allocator.mig.geometry import Geometry, geometry_of
from gpuportion.shim.request import Request

A100 = geometry_of(profiles(A100_40))
GB = 10**9


@pytest.fixture(autouse=True)
def nothing_is_known_yet() -> None:
    """What an earlier test asked is no answer to this one."""
    fitting.cache_clear()


@pytest.mark.parametrize(
    ("want", "ask"),
    [
        (Request(memory=(4 * GB,)), Ask(memory=3814)),
        (Request(memory=(4 * GB, 8 * GB), count=2, compute=30), Ask(memory=7629, compute=30)),
        (Request(fraction=Decimal("0.5")), Ask(fraction=Decimal("0.5"))),
        (Request(compute=1), Ask(compute=1)),
        (Request(mig="2g.10gb", memory=(4 * GB,)), Ask(memory=3814, name="2g.10gb")),
        (Request(count=1), Ask(fraction=Decimal(1))),
    ],
)
def test_what_of_a_request_chooses_a_profile(want: Request, ask: Ask) -> None:
    """The largest amount counts, in whole MiB; what is not asked for is nothing."""
    found = ask_of(want)
    assert found == ask and isinstance(found.memory, int)


@pytest.mark.parametrize(
    ("table", "ask", "name"),
    [
        (A100_40, Ask(memory=4864), "1g.5gb"),
        (A100_40, Ask(memory=4865), "1g.10gb"),
        (A100_40, Ask(memory=9857), "3g.20gb"),
        (A100_40, Ask(compute=30), "3g.20gb"),
        (A100_40, Ask(compute=28), "2g.10gb"),
        (A100_40, Ask(compute=29), "3g.20gb"),
        (A100_40, Ask(compute=14), "1g.5gb"),
        (A100_40, Ask(compute=15), "2g.10gb"),
        (A100_40, Ask(compute=100), "7g.40gb"),
        (A100_40, Ask(memory=4000, compute=50), "4g.20gb"),
        (A100_40, Ask(memory=20000, compute=1), "7g.40gb"),
        (A100_40, Ask(fraction=Decimal("0.5")), "3g.20gb"),
        (A100_40, Ask(fraction=Decimal("0.51")), "7g.40gb"),
        (A100_40, Ask(fraction=Decimal("0.001")), "1g.5gb"),
        (A30, Ask(compute=25), "1g.6gb"),
        (A30, Ask(compute=26), "2g.12gb"),
        (A30, Ask(memory=6000), "2g.12gb"),
        (H100_80, Ask(memory=9984), "1g.10gb"),
        (RTX_PRO_6000, Ask(memory=1), "1g.24gb"),
        (RTX_PRO_6000, Ask(fraction=Decimal("0.26")), "2g.48gb"),
        (RTX_PRO_6000, Ask(compute=51), "4g.96gb"),
        (RTX_PRO_6000, Ask(name="1g.24gb+me.all"), "1g.24gb+me.all"),
    ],
)
def test_the_smallest_profile_that_holds_a_request(table: str, ask: Ask, name: str) -> None:
    """Fewest memory slices, then fewest compute slices; media variants by name alone."""
    assert fitting(geometry_of(profiles(table)), ask)[0].name == name


@pytest.mark.parametrize(
    ("table", "ask", "names"),
    [
        (A100_40, Ask(memory=4864), "1g.5gb 1g.10gb 2g.10gb 3g.20gb 4g.20gb 7g.40gb"),
        (A100_40, Ask(memory=4000, compute=15), "2g.10gb 3g.20gb 4g.20gb 7g.40gb"),
        (A100_40, Ask(name="1g.5gb"), "1g.5gb 1g.10gb 2g.10gb 3g.20gb 4g.20gb 7g.40gb"),
        (A100_40, Ask(name="1g.10gb"), "1g.10gb 2g.10gb 3g.20gb 4g.20gb 7g.40gb"),
        (A100_40, Ask(name="3g.20gb", memory=19968, compute=42), "3g.20gb 4g.20gb 7g.40gb"),
        (A100_40, Ask(name="3g.20gb", fraction=Decimal("0.5")), "3g.20gb 4g.20gb 7g.40gb"),
        (A100_40, Ask(name="1g.5gb+me"), "1g.5gb+me"),
        (RTX_PRO_6000, Ask(name="1g.24gb+gfx"), "1g.24gb+gfx 2g.48gb+gfx 4g.96gb+gfx"),
        (RTX_PRO_6000, Ask(name="2g.48gb-me"), "2g.48gb-me"),
    ],
)
def test_all_that_would_do_comes_the_smallest_first(table: str, ask: Ask, names: str) -> None:
    """What is larger than a named one is of its kind, and has no less of anything."""
    assert [one.name for one in fitting(geometry_of(profiles(table)), ask)] == names.split()


def test_more_slices_with_less_of_something_is_not_larger() -> None:
    """Whatever a driver calls it."""
    named = profiles(A100_40)[3]
    less = [replace(named, id=90, size=3, compute=1), replace(named, id=91, size=3, memory=named.memory - 1)]
    assert fitting(Geometry([named, *less]), Ask(name=named.name)) == ()
    less = [replace(one, names=(f"3g.{20 + k}gb",)) for k, one in enumerate(less)]
    assert fitting(Geometry([named, *less]), Ask(name=named.name)) == (named,)


@pytest.mark.parametrize(
    "ask",
    [
        Ask(memory=40193),
        Ask(compute=101),
        Ask(name="2g.20gb"),
        Ask(memory=9857, name="2g.10gb"),
        Ask(compute=30, name="2g.10gb"),
    ],
)
def test_what_a_board_cannot_do_fits_nothing(ask: Ask) -> None:
    """More than the largest, an unknown name, a name that is too small for the amount beside it."""
    assert fitting(A100, ask) == ()


@pytest.mark.parametrize(
    ("names", "asked", "found"),
    [
        (("3g.39gb",), "3g.40gb", True),
        (("7g.79gb",), "7g.80gb", True),
        (("7g.80gb",), "7g.79GB", True),
        (("1g.10gb+me",), "1g.10gb", False),
        (("1g.18gb",), "1g.20gb", False),
        (("1g.10gb",), "1g.12gb", False),
        (("7g.97gb",), "7g.100gb", True),
        (("7g.100gb",), "7g.96gb", False),
        (("3g.40gb",), "4g.40gb", False),
        (("1g.31gb", "1g.35gb"), "1g.35gb", True),
        (("MIG 1g.5gb",), "MIG 1g.5gb", True),
    ],
)
def test_names_of_older_and_newer_drivers(names: tuple[str, ...], asked: str, found: bool) -> None:
    """Every name that the driver's reader knows counts, and what differs by rounding; no other size does."""
    one = replace(profiles(A100_40)[0], names=names)
    assert (called(Geometry([one]), asked) is one) == found


def test_the_very_name_goes_before_one_that_is_nearly_it() -> None:
    """Two profiles can be as near as rounding, and then the driver's word decides."""
    one, other = (replace(profiles(A100_40)[k], names=(f"3g.{size}gb",)) for k, size in ((0, 39), (1, 40)))
    board = Geometry([one, other])
    assert called(board, "3g.40gb") is other and called(board, "3g.39gb") is one


def test_a_whole_gpu_is_all_of_its_slices() -> None:
    """Only a number or a choice of GPUs was given."""
    assert fitting(A100, ask_of(Request(select=("0",))))[0].name == "7g.40gb"


@given(st.integers(0, 255))
def test_a_placement_never_makes_room(taken: int) -> None:
    """What fits beside only shrinks, for each shape and placement."""
    for masks in A100.masks.values():
        for place in masks:
            if not place & taken:
                before, after = A100.room(taken), A100.room(taken | place)
                assert all(a >= b for a, b in zip(before, after, strict=True))


def test_the_mix_forgets_the_oldest() -> None:
    """So many requests are remembered, each by what it asks, not by where it was served."""
    mix = RecentMix()
    for _ in range(WINDOW):
        mix = mix.after(Ask(name="7g.40gb"))
    for _ in range(WINDOW):
        mix = mix.after(Ask(memory=4000))
    assert mix.counts == {Ask(memory=4000): WINDOW} and len(mix.asks) == WINDOW
    weights = mix.weights(A100)
    assert sum(weights) == pytest.approx(1) and max(weights) == weights[A100.shape_of[19]] > 0.9


def test_what_nobody_asks_for_costs_little_to_spoil() -> None:
    """A 1g in the 4g's place spoils more after requests for 4g than after requests for 1g."""
    costs = []
    for name in ("4g.20gb", "1g.5gb"):
        mix = RecentMix()
        for _ in range(50):
            mix = mix.after(Ask(name=name))
        score = Score(A100, mix)
        costs.append(score.added(0, 1) - score.added(0, 1 << 6))
    assert costs[0] > costs[1]


def test_the_mix_weighs_each_shape_by_who_asked_for_it() -> None:
    """However it was asked; what the board cannot do counts for nothing, and a board without shapes has no weights."""
    mix = RecentMix()
    for ask in (
        Ask(memory=4000),
        Ask(name="1g.5gb+me"),
        Ask(memory=4001),
        Ask(name="7g.40gb"),
        Ask(memory=99999),
    ):
        mix = mix.after(ask)
    assert mix.weights(A100) == pytest.approx([0.4, 0.1, 0.1, 0.1, 0.1, 0.2])
    assert mix.weights(Geometry([])) == ()


def test_what_is_spoilt_is_every_place_that_goes_by_the_root_of_its_slices() -> None:
    """Of an empty A100 with nobody's wishes known, all of it: 7, 4, 3, 2, 1 and 1 places; it is counted once."""
    score = Score(A100, RecentMix())
    lost = 7 * 1 + (4 + 3) * 2**0.5 + (2 + 1) * 2 + 1 * 8**0.5
    assert score.added(0, 0xFF) == pytest.approx(lost / 6) and score.added(0xFF, 0xFF) == 0
    assert score.added(0, 0xFF) is score.added(0, 0xFF)
