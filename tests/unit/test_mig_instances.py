"""What one GPU has room for beside its instances, and which idle ones would have to go."""

from __future__ import annotations

import dataclasses

import pytest
from tests.support.mig_boards import gpu, instance

from gpuportion.allocator.mig.instances import Instance, MigGpu, Occupancy
from gpuportion.allocator.mig.profiles import Profile

A100, A30, RTX = gpu(), gpu(0, "NVIDIA A30"), gpu(0, "NVIDIA RTX PRO 6000 Blackwell Server Edition")


def named(on: MigGpu, name: str) -> Profile:
    return next(one for one in on.board.profiles if one.name == name)


def test_slices_are_taken_by_what_cannot_go() -> None:
    """In use, or of others; idle ones of ours are room, the longest idle first, then by id."""
    late = instance(A100, "1g.5gb", 1, idle_since=5.0)
    early = instance(A100, "1g.5gb", 3, idle_since=1.0)
    also = instance(A100, "1g.5gb", 2, idle_since=1.0)
    here = [
        instance(A100, "1g.5gb", 0),
        late,
        early,
        also,
        instance(A100, "2g.10gb", 4, idle_since=1.0, ours=False),
    ]
    one = Occupancy(A100, here)
    assert (one.taken, one.idle_mask, one.free) == (0b0110001, 0b0001110, 5)
    assert one.idle == [also, early, late] and one.instances is here
    assert Occupancy(A100, [late, early]).idle == [early, late]
    assert [each.evictable for each in here] == [False, True, True, True, False]


def test_an_empty_gpu_is_all_room() -> None:
    """Nothing has to go for anything."""
    one = Occupancy(A100, [])
    assert (one.taken, one.idle_mask, one.free, one.idle) == (0, 0, 8, [])
    assert one.victims(named(A100, "7g.40gb"), 0xFF) == ()
    for on in (A100, A30, RTX):
        assert all(Occupancy(on, []).legal(profile) for profile in on.board.profiles)


@pytest.mark.parametrize(
    ("on", "here", "wanted", "legal"),
    [
        (A100, ["1g.5gb"] * 6, "1g.5gb", True),
        (A100, ["1g.5gb"] * 7, "1g.5gb", False),
        (A30, ["1g.6gb"] * 3, "1g.6gb", True),
        (A30, ["1g.6gb"] * 4, "1g.6gb", False),
        (A30, ["1g.6gb+me"], "1g.6gb+me", False),
        (A30, ["1g.6gb+me"], "2g.12gb+me", False),
        (A30, ["1g.6gb+me", "1g.6gb+me"], "2g.12gb", True),
        (A30, ["1g.6gb+me", "2g.12gb"], "2g.12gb", False),
        (RTX, ["1g.24gb+me.all"], "1g.24gb-me", True),
        (RTX, ["1g.24gb+me.all"], "1g.24gb", False),
        (RTX, ["1g.24gb-me"], "1g.24gb+me.all", True),
        (RTX, ["1g.24gb+gfx"], "1g.24gb+me.all", False),
    ],
)
def test_counts_and_media_engines_allow_one_more(
    on: MigGpu, here: list[str], wanted: str, legal: bool
) -> None:
    """Whatever lies where; as if the first were gone, they allow what the others do."""
    there = [instance(on, name, 0) for name in here]
    assert Occupancy(on, there).legal(named(on, wanted)) == legal
    assert Occupancy(on, [there[0], *there]).legal(named(on, wanted), [there[0]]) == legal


def idle(on: MigGpu, name: str, start: int, since: float) -> Instance:
    return instance(on, name, start, idle_since=since)


def test_who_lies_in_the_way_has_to_go() -> None:
    """All of them, unless one of them cannot; nobody else, as long as the counts allow it."""
    here = [idle(A100, "1g.5gb", 0, 3.0), idle(A100, "1g.5gb", 2, 2.0), idle(A100, "1g.5gb", 6, 1.0)]
    one = Occupancy(A100, [*here, instance(A100, "1g.5gb", 5)])
    assert one.victims(named(A100, "4g.20gb"), 0b1111) == (here[1], here[0])
    assert one.victims(named(A100, "1g.5gb"), 0b10000) == ()
    assert one.victims(named(A100, "3g.20gb"), 0b11110000) is None


def test_who_has_the_engines_has_to_go_too() -> None:
    """The longest idle of those that would do, and no more of them than needed."""
    lying, first, second = (idle(A30, "1g.6gb", k, since) for k, since in ((0, 9.0), (1, 1.0), (2, 2.0)))
    media = idle(A30, "1g.6gb+me", 3, 3.0)
    one = Occupancy(A30, [lying, first, second, media])
    assert one.victims(named(A30, "1g.6gb+me"), 0b1) == (lying, media)
    assert one.victims(named(A30, "1g.6gb"), 0b1) == (lying,)
    held = dataclasses.replace(media, idle_since=None)
    assert Occupancy(A30, [lying, first, held]).victims(named(A30, "1g.6gb+me"), 0b1) is None
    everything = idle(RTX, "1g.24gb+me.all", 6, 1.0)
    others = [idle(RTX, "1g.24gb-me", 0, 2.0), idle(RTX, "1g.24gb-me", 3, 3.0), everything]
    assert Occupancy(RTX, others).victims(named(RTX, "2g.48gb"), 0b111111) == (
        others[0],
        others[1],
        everything,
    )


def test_two_have_to_go_where_one_is_not_enough() -> None:
    """Neither lies in the way; together they have the engines."""
    here = [idle(RTX, "1g.24gb", start, float(start)) for start in (3, 6, 9)]
    found = Occupancy(RTX, here).victims(named(RTX, "1g.24gb+me.all"), 0b111)
    assert found == tuple(here)
    held = instance(RTX, "1g.24gb", 9)
    assert Occupancy(RTX, [*here[:2], held]).victims(named(RTX, "1g.24gb+me.all"), 0b111) is None


def test_a_profile_that_nobody_knows_takes_its_slices() -> None:
    """A driver can have more than it tells."""
    strange = Instance(A30.uuid, 1, 99, 0, 2)
    one = Occupancy(A30, [strange])
    assert (one.free, one.taken) == (2, 0b11)
    assert one.legal(named(A30, "2g.12gb+me"))
