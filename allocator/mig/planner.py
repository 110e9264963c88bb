"""Which MIG instance serves a request: one that is there and idle, one to be made, or none.

    plan(gpus, instances, want, policy) -> Plan | Refusal; raises GpuportionError where it never could be served

    Plan.reuse      this idle instance is handed over as it is; nothing is made
    Plan.evict      otherwise these idle instances of ours go first, in this order (mostly none), and then
    Plan.profile, Plan.start   this profile is made at this placement of Plan.gpu

The order of preference: an idle instance of the smallest profile; a placement that needs no eviction; the
fewest evictions. Among equals the least fragmentation, then the fullest GPU, then the longest idle victims. Where
GPUs differ, those whose smallest fitting profile has the least memory are asked first. Larger profiles are
taken only if the request allows them and no smallest one has room. What others made is never touched.

Pure: values in, a value out. Knows nothing of NVML, and believes what it is told: instances are as they were
last read, and what the driver refused although it should fit comes back in `Policy.avoid`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from gpuportion.allocator.mig.asks import Ask, ask_of, fitting
from gpuportion.allocator.mig.fragmentation import RecentMix, Score
from gpuportion.allocator.mig.geometry import Geometry, first
from gpuportion.allocator.mig.instances import Instance, MigGpu, Occupancy
from gpuportion.allocator.mig.possible import possible
from gpuportion.allocator.mig.profiles import Profile
from gpuportion.allocator.mig.refusals import Refusal
from gpuportion.shim.request import Request


class Spot(NamedTuple):
    """A placement on a GPU: its UUID, the profile's id and the first slice."""

    uuid: str
    profile: int
    start: int


@dataclass(frozen=True, slots=True)
class Policy:
    """How this node prefers to place. `avoid`: spots that the driver refused a moment ago."""

    mix: RecentMix = field(default_factory=RecentMix)
    avoid: frozenset[Spot] = frozenset()


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do; see the top of this file."""

    gpu: MigGpu
    profile: Profile
    start: int
    reuse: Instance | None = None
    evict: tuple[Instance, ...] = ()


def plan(
    gpus: Sequence[MigGpu], instances: Iterable[Instance], want: Request, policy: Policy
) -> Plan | Refusal:
    """How `want` is served, given what is on the GPUs already."""
    node = _occupancies(possible(gpus, want), instances)
    scores = _scores(node, policy)
    steps = _steps(node, ask_of(want))
    for step in steps:
        if not step.grown or want.mig_grow:
            found = _best(step, scores, policy)
            if found is not None:
                return found
    larger = [step for step in steps if step.grown]
    fits = next((found for step in larger if (found := _best(step, scores, policy))), None)
    return Refusal(
        want=want,
        node=tuple(node),
        smallest=tuple(profile for step in steps if not step.grown for _, profile in step.choices[:1]),
        larger=larger[0].choices[0][1] if larger else None,
        fits=fits.profile if fits else None,
    )


def _occupancies(gpus: Sequence[MigGpu], instances: Iterable[Instance]) -> list[Occupancy]:
    by_gpu: dict[str, list[Instance]] = {gpu.uuid: [] for gpu in gpus}
    for each in instances:
        if each.gpu in by_gpu:
            by_gpu[each.gpu].append(each)
    return [Occupancy(gpu, by_gpu[gpu.uuid]) for gpu in gpus]


class Step(NamedTuple):
    """GPUs on which the same amount would be taken: tried together, before anything larger."""

    grown: bool
    choices: list[tuple[Occupancy, Profile]]


def _steps(node: Sequence[Occupancy], ask: Ask) -> list[Step]:
    """Smallest profiles first, those with the least memory before others; then each larger one."""
    steps: dict[tuple[bool, int, int, int], Step] = {}
    for one in node:
        for k, profile in enumerate(fitting(one.gpu.board, ask)):
            key = (k > 0, profile.memory, profile.size, profile.compute)
            steps.setdefault(key, Step(k > 0, [])).choices.append((one, profile))
    return [steps[key] for key in sorted(steps)]


Scores = dict[Geometry, Score]


def _scores(node: Sequence[Occupancy], policy: Policy) -> Scores:
    return {board: Score(board, policy.mix) for board in {one.gpu.board for one in node}}


def _best(step: Step, scores: Scores, policy: Policy) -> Plan | None:
    return _reused(step, scores) or _made(step, scores, policy) or _evicting(step, scores, policy)


def _reused(step: Step, scores: Scores) -> Plan | None:
    """An idle instance of the very profile, where it spoils least."""
    ways = [
        (_cost(one, each.mask, scores), one, profile, each)
        for one, profile in step.choices
        for each in one.idle
        if each.profile == profile.id and each.whole
    ]
    if not ways:
        return None
    _, one, profile, each = min(ways, key=lambda way: way[0])
    return Plan(one.gpu, profile, each.start, reuse=each)


def _made(step: Step, scores: Scores, policy: Policy) -> Plan | None:
    """A free place that needs no eviction."""
    ways = [
        (_cost(one, place, scores), one, profile)
        for one, profile in step.choices
        if one.gpu.board.has_room(profile, one.taken | one.idle_mask) and one.legal(profile)
        for place in one.gpu.board.masks[profile.id]
        if not place & (one.taken | one.idle_mask) and _allowed(one, profile, place, policy)
    ]
    if not ways:
        return None
    cost, one, profile = min(ways, key=lambda way: way[0])
    return Plan(one.gpu, profile, cost.start)


def _evicting(step: Step, scores: Scores, policy: Policy) -> Plan | None:
    """The fewest evictions; among as many, the least spoilt, then the longest idle.

    A victim that lies where its reuse would spoil much is worth less, so it goes before one that lies well."""
    ways = []
    for one, profile in step.choices:
        if not one.gpu.board.has_room(profile, one.taken):
            continue
        for place in one.gpu.board.masks[profile.id]:
            gone = one.victims(profile, place) if _allowed(one, profile, place, policy) else None
            if gone is not None:
                cost = _cost(one, place, scores)
                score = scores[one.gpu.board]
                net = cost.spoilt - sum(score.added(one.taken, each.mask) / each.size for each in gone)
                ages = sorted(each.idle_since or 0.0 for each in gone)
                ways.append(((len(gone), round(net, 9), cost.free, ages, cost), one, profile, gone))
    if not ways:
        return None
    key, one, profile, gone = min(ways, key=lambda way: way[0])
    return Plan(one.gpu, profile, key[-1].start, evict=gone)


def _allowed(one: Occupancy, profile: Profile, place: int, policy: Policy) -> bool:
    return not policy.avoid or Spot(one.gpu.uuid, profile.id, first(place)) not in policy.avoid


class Cost(NamedTuple):
    """What is compared, in this order; smaller is better."""

    spoilt: float
    free: int
    gpu: int
    start: int


def _cost(one: Occupancy, place: int, scores: Scores) -> Cost:
    spoilt = scores[one.gpu.board].added(one.taken, place)
    return Cost(spoilt, one.free, one.gpu.index, first(place))
