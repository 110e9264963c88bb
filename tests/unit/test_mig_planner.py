"""The MIG planner against an exhaustive oracle that knows only the driver's rules.

The oracle enumerates every set of instances that a board allows, and every subset of idle ones that could go. It
reads the tables of tests/support/mig_boards.py and NVIDIA's rules in words, none of the planner's own arithmetic."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.mig_boards import BOARDS, gpu, instance

from gpuportion.allocator.mig.asks import Ask, ask_of
from gpuportion.allocator.mig.fragmentation import RecentMix
from gpuportion.allocator.mig.instances import Instance, MigGpu, Occupancy
from gpuportion.allocator.mig.planner import Plan, Policy, Spot, plan
from gpuportion.allocator.mig.profiles import Profile
from gpuportion.allocator.mig.refusals import Refusal
from gpuportion.shim.request import Request
from gpuportion.sizes import MIB

Placed = tuple[Profile, int]
EXAMPLES = 5000 if os.environ.get("GPUPORTION_TEST_LONG") else 200


def allowed(placed: Sequence[Placed]) -> bool:
    """NVIDIA's rules: no slice twice, no more of a profile than it says, one `+me`, `+me.all` only beside `-me`."""
    slices = [start + k for profile, start in placed for k in range(profile.size)]
    if len(slices) != len(set(slices)):
        return False
    names = [profile.name for profile, _ in placed]
    if any(names.count(profile.name) > profile.most for profile, _ in placed):
        return False
    if sum(name.endswith("+me") for name in names) > 1:
        return False
    others = [name for name in names if not name.endswith("+me.all")]
    return others == names or (len(others) == len(names) - 1 and all(name.endswith("-me") for name in others))


def places(profiles: Sequence[Profile]) -> list[Placed]:
    return [(profile, start) for profile in profiles for start in profile.starts]


def legal_sets(choices: Sequence[Placed]) -> Iterator[tuple[Placed, ...]]:
    """Every set that the rules allow, the empty one too."""

    def grow(k: int, chosen: tuple[Placed, ...]) -> Iterator[tuple[Placed, ...]]:
        yield chosen
        for n in range(k, len(choices)):
            if allowed((*chosen, choices[n])):
                yield from grow(n + 1, (*chosen, choices[n]))

    return grow(0, ())


def ordinary(profiles: Sequence[Profile]) -> list[Profile]:
    return [profile for profile in profiles if "+" not in profile.name and "-" not in profile.name]


@pytest.mark.parametrize(
    ("model", "count"),
    [
        ("NVIDIA A30", 26),
        ("NVIDIA A100-SXM4-40GB", 723),
        ("NVIDIA H100 80GB HBM3", 723),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", 26),
    ],
)
def test_the_oracle_knows_every_legal_set(model: str, count: int) -> None:
    """Of ordinary profiles: 723 sets on eight slices, 26 on four blocks (an empty half, a 2g, or three with 1g)."""
    assert len(list(legal_sets(places(ordinary(gpu(0, model).board.profiles))))) == count


@pytest.mark.parametrize("model", BOARDS)
def test_what_is_made_step_by_step_is_what_the_rules_allow(model: str) -> None:
    """Slices and media engines, read from the driver, say the same as NVIDIA's rules in words."""
    on = gpu(0, model)
    choices = places(on.board.profiles)
    for chosen in legal_sets(choices):
        here = Occupancy(on, [instance(on, profile.name, start) for profile, start in chosen])
        for profile, start in choices:
            place = ((1 << profile.size) - 1) << start
            assert (here.victims(profile, place) == ()) == allowed((*chosen, (profile, start)))


class Way(NamedTuple):
    """One way to serve a request: how much it takes, whether it reuses, how many go."""

    memory: int
    made: bool
    evictions: int


def smallest(on: MigGpu, want: Request) -> Profile | None:
    """The profile that the contract means on this board."""
    if want.mig is not None:
        return next((each for each in on.board.profiles if each.name == want.mig), None)
    most = max(each.compute for each in on.board.profiles)
    fitting = [
        each
        for each in ordinary(on.board.profiles)
        if each.memory * MIB >= max(want.memory, default=0)
        and each.compute >= -(-(want.compute or 0) * most // 100)
    ]
    return min(fitting, key=lambda each: (each.size, each.compute), default=None)


def ways(on: MigGpu, here: Sequence[Instance], profile: Profile) -> Iterator[Way]:
    by_id = {each.id: each for each in on.board.profiles}
    idle = [each for each in here if each.ours and each.idle_since is not None]
    if any(each.profile == profile.id for each in idle):
        yield Way(profile.memory, False, 0)
    for count in range(len(idle) + 1):
        for gone in combinations(idle, count):
            left = [(by_id[each.profile], each.start) for each in here if each not in gone]
            if any(allowed((*left, (profile, start))) for start in profile.starts):
                yield Way(profile.memory, True, count)
                return


class Node(NamedTuple):
    gpus: list[MigGpu]
    instances: list[Instance]


@st.composite
def nodes(draw: st.DrawFn) -> Node:
    """Up to three GPUs, each with a legal set of instances: in use, idle, or of others."""
    node = Node([], [])
    for index in range(draw(st.integers(1, 3))):
        on = gpu(index, draw(st.sampled_from(list(BOARDS))))
        node.gpus.append(on)
        chosen: list[Placed] = []
        for one in draw(st.lists(st.sampled_from(places(on.board.profiles)), max_size=9)):
            if allowed((*chosen, one)):
                chosen.append(one)
        for profile, start in chosen:
            ours = draw(st.sampled_from((True, True, True, False)))
            since = draw(st.none() | st.integers(0, 9).map(float))
            node.instances.append(instance(on, profile.name, start, since, ours))
    return node


NAMES = sorted({each.name for model in BOARDS for each in gpu(0, model).board.profiles})
WANTS = st.one_of(
    st.sampled_from(NAMES).map(lambda name: Request(mig=name)),
    st.integers(1, 97000).map(lambda size: Request(memory=(size * MIB,))),
    st.builds(
        lambda size, compute: Request(memory=(size * MIB,), compute=compute),
        st.integers(1, 50000),
        st.integers(1, 100),
    ),
    st.integers(1, 100).map(lambda compute: Request(compute=compute)),
)


@settings(max_examples=EXAMPLES, deadline=None)
@given(nodes(), WANTS)
def test_a_plan_is_the_best_that_exhaustive_search_finds(node: Node, want: Request) -> None:
    """Refused only where nothing would do; the smallest profile; reuse before making; the fewest evictions."""
    fitting = {on.uuid: profile for on in node.gpus if (profile := smallest(on, want))}
    if not fitting:
        return  # a request that this node could never serve
    best = min(
        (
            way
            for on in node.gpus
            if on.uuid in fitting
            for way in ways(on, [each for each in node.instances if each.gpu == on.uuid], fitting[on.uuid])
        ),
        default=None,
    )
    found = plan(node.gpus, node.instances, want, Policy())
    if best is None:
        assert isinstance(found, Refusal)
        return
    assert isinstance(found, Plan)
    assert found.profile == fitting[found.gpu.uuid]
    assert Way(found.profile.memory, found.reuse is None, len(found.evict)) == best


@settings(max_examples=EXAMPLES, deadline=None)
@given(nodes(), WANTS)
def test_a_plan_can_be_carried_out(node: Node, want: Request) -> None:
    """Nothing overlaps once the evicted are gone; only idle instances of ours go, or are handed over."""
    if not any(smallest(on, want) for on in node.gpus):
        return
    found = plan(node.gpus, node.instances, want, Policy())
    if isinstance(found, Refusal):
        return
    here = [each for each in node.instances if each.gpu == found.gpu.uuid]
    mine = [each for each in here if each.ours and each.idle_since is not None]
    if found.reuse is not None:
        assert found.reuse in mine and not found.evict
        assert (found.reuse.profile, found.reuse.start) == (found.profile.id, found.start)
        return
    assert all(each in mine for each in found.evict)
    by_id = {each.id: each for each in found.gpu.board.profiles}
    left = [(by_id[each.profile], each.start) for each in here if each not in found.evict]
    assert found.start in found.profile.starts and allowed((*left, (found.profile, found.start)))


def planned(node: Node, want: Request, policy: Policy | None = None) -> Plan:
    found = plan(node.gpus, node.instances, want, policy or Policy())
    assert isinstance(found, Plan)
    return found


def test_the_longest_idle_of_equal_victims_goes() -> None:
    """Two GPUs alike but for how long their instance is idle."""
    one, other = gpu(0), gpu(1)
    whole = [instance(one, "7g.40gb", 0, idle_since=20.0), instance(other, "7g.40gb", 0, idle_since=10.0)]
    found = planned(Node([one, other], whole), Request(mig="3g.20gb"))
    assert found.gpu is other and found.evict == (whole[1],)


def test_who_was_idle_from_the_clocks_beginning_is_idle_longest() -> None:
    """Zero is a time."""
    one, other = gpu(0), gpu(1)
    whole = [instance(one, "7g.40gb", 0, idle_since=0.5), instance(other, "7g.40gb", 0, idle_since=0.0)]
    assert planned(Node([one, other], whole), Request(mig="3g.20gb")).evict == (whole[1],)


@pytest.mark.parametrize("idle", [False, True])
def test_of_equal_places_the_first_serves(idle: bool) -> None:
    """By the GPU's index, in whatever order they are told; what is on GPUs that are not asked does not count."""
    gpus = [gpu(2), gpu(0), gpu(1)]
    here = [instance(on, "7g.40gb", 0, idle_since=1.0) for on in gpus] if idle else []
    elsewhere = instance(gpu(7), "7g.40gb", 0)
    found = planned(Node(gpus, [elsewhere, *here]), Request(mig="7g.40gb"))
    assert (found.gpu.index, found.start, found.reuse is not None) == (0, 0, idle)
    one = planned(Node(gpus, [elsewhere, *here]), Request(mig="3g.20gb"))
    assert (one.gpu.index, len(one.evict)) == (0, int(idle))


@pytest.mark.parametrize("idle", [False, True])
def test_of_places_that_spoil_as_much_the_fullest_gpu_serves(idle: bool) -> None:
    """Beside a 1g at 6 the last slice is nobody's, so a double one there takes no more room: only a slice."""
    gpus = [gpu(0), gpu(1)]
    here = [instance(gpus[0], "1g.5gb", 6), instance(gpus[1], "1g.10gb", 6)]
    here += [instance(on, "3g.20gb", 0, idle_since=1.0) for on in gpus] if idle else []
    found = planned(Node(gpus, here), Request(mig="3g.20gb"))
    assert (found.gpu.index, found.start, found.reuse is not None) == (1, 0, idle)


def test_of_gpus_alike_the_first_serves_wherever_its_place_is() -> None:
    """Its index goes before the place."""
    gpus = [gpu(0, "NVIDIA A30"), gpu(1, "NVIDIA A30")]
    here = [instance(on, "2g.12gb", start) for on, start in zip(gpus, (0, 2), strict=True)]
    found = planned(Node(gpus, here), Request(mig="2g.12gb"))
    assert (found.gpu.index, found.start) == (0, 2)


def test_what_spoils_a_little_less_decides_which_of_two_goes() -> None:
    """A 1g or a double one, each in a place for a 3g: by a part of a place."""
    on = gpu()
    here = [instance(on, "1g.5gb", 2, idle_since=1.0), instance(on, "1g.10gb", 4, idle_since=1.0)]
    found = planned(Node([on], here), Request(mig="3g.20gb"))
    assert (found.start, found.evict) == (0, (here[0],))


def test_a_gpu_without_room_hides_no_other_from_eviction() -> None:
    """The first one is in use."""
    gpus = [gpu(0), gpu(1)]
    here = [instance(gpus[0], "7g.40gb", 0), instance(gpus[1], "7g.40gb", 0, idle_since=1.0)]
    assert planned(Node(gpus, here), Request(mig="3g.20gb")).evict == (here[1],)


def test_the_smallest_of_another_board_goes_before_anything_larger() -> None:
    """Though that has less memory: it is more than what was asked for there."""
    small, large = gpu(0), gpu(1, "NVIDIA RTX PRO 6000 Blackwell Server Edition")
    spots = frozenset(Spot(small.uuid, 19, start) for start in range(7))
    want = Request(memory=(4 * 10**9,), mig_grow=True)
    assert planned(Node([small, large], []), want, Policy(avoid=spots)).profile.name == "1g.24gb"
    full = [instance(large, "4g.96gb", 0)]
    assert planned(Node([small, large], full), want, Policy(avoid=spots)).profile.name == "1g.10gb"


def test_the_idle_instance_that_spoils_least_is_handed_over() -> None:
    """One in the place of a 4g stays free for it."""
    on = gpu()
    here = [instance(on, "1g.5gb", start, idle_since=1.0) for start in (0, 6)]
    assert planned(Node([on], here), Request(mig="1g.5gb")).reuse == here[1]


def test_the_idle_instance_that_lies_badly_goes_first() -> None:
    """A 1g that spoils the place of a 4g is worth less than the 4g, although that idles longer."""
    one, other = gpu(0), gpu(1)
    used = [instance(on, "3g.20gb", 4) for on in (one, other)]
    well = instance(one, "4g.20gb", 0, idle_since=1.0)
    badly = instance(other, "1g.5gb", 0, idle_since=2.0)
    found = planned(Node([one, other], [*used, well, badly]), Request(mig="3g.20gb"))
    assert found.evict == (badly,)


def test_an_idle_instance_elsewhere_goes_for_its_media_engines() -> None:
    """It is in nobody's place, but has the engines that `+me.all` takes all of."""
    on = gpu(0, "NVIDIA RTX PRO 6000 Blackwell Server Edition")
    idle = instance(on, "1g.24gb+me", 0, idle_since=1.0)
    plain = instance(on, "1g.24gb-me", 3, idle_since=0.0)
    here = [idle, plain, instance(on, "1g.24gb-me", 9)]
    found = planned(Node([on], here), Request(mig="1g.24gb+me.all"))
    assert found.evict == (idle,)
    here = [idle, instance(on, "1g.24gb-me", 3)]
    found = planned(Node([on], here), Request(mig="2g.48gb+me.all"))
    assert (found.start, found.evict) == (6, (idle,))


def test_a_half_torn_instance_is_evicted_and_never_handed_over() -> None:
    """Its compute instance is gone, so a container could not use it."""
    on = gpu()
    torn = Instance(on.uuid, 0, 0, 0, 8, ours=True, idle_since=1.0, whole=False)
    found = planned(Node([on], [torn]), Request(mig="7g.40gb"))
    assert found.reuse is None and found.evict == (torn,)


def test_what_the_driver_refused_a_moment_ago_is_avoided() -> None:
    """The next best spot is taken, and none is not a crash."""
    on = gpu()
    want, node = Request(mig="3g.20gb"), Node([on], [])
    first = planned(node, want)
    spots = [Spot(on.uuid, first.profile.id, first.start)]
    second = planned(node, want, Policy(avoid=frozenset(spots)))
    spots.append(Spot(on.uuid, second.profile.id, second.start))
    assert {first.start, second.start} == {0, 4}
    assert isinstance(plan([on], [], want, Policy(avoid=frozenset(spots))), Refusal)


def test_a_larger_profile_is_taken_only_where_it_is_allowed() -> None:
    """A board can have the small profile's media engine spent and a larger one idle."""
    on = gpu(0, "NVIDIA A30")
    here = [instance(on, "1g.6gb+me", 0, ours=False)]
    refused = plan([on], here, Request(mig="1g.6gb+me"), Policy())
    assert isinstance(refused, Refusal)
    spots = frozenset(Spot(on.uuid, 14, start) for start in range(4))
    small = Request(memory=(4 << 30,))
    assert isinstance(plan([on], [], small, Policy(avoid=spots)), Refusal)
    grown = planned(Node([on], []), Request(memory=(4 << 30,), mig_grow=True), Policy(avoid=spots))
    assert grown.profile.name == "2g.12gb"


def test_of_different_boards_the_one_that_wastes_least_serves() -> None:
    """4 GB is a 1g.5gb of an A100, even if a 1g.24gb stands idle."""
    small, large = gpu(1), gpu(0, "NVIDIA RTX PRO 6000 Blackwell Server Edition")
    idle = instance(large, "1g.24gb", 0, idle_since=1.0)
    found = planned(Node([large, small], [idle]), Request(memory=(4 * 10**9,)))
    assert (found.gpu, found.profile.name) == (small, "1g.5gb")


def test_a_small_instance_keeps_away_from_the_places_of_large_ones() -> None:
    """The first 1g of an empty A100 goes where the double-memory 1g and the 3g lose least, and 4g nothing."""
    found = planned(Node([gpu()], []), Request(mig="1g.5gb"))
    assert found.start >= 4


def test_what_is_asked_for_lately_is_kept_room_for() -> None:
    """With 4g in demand a 3g goes to the end; its other place would leave none for a 4g."""
    mix = RecentMix()
    for _ in range(20):
        mix = mix.after(_ask("4g.20gb"))
    found = planned(Node([gpu()], []), Request(mig="3g.20gb"), Policy(mix))
    assert found.start == 4


def _ask(name: str) -> Ask:
    return ask_of(Request(mig=name))
