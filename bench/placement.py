"""How many jobs are served, and how full the GPUs get, by ours and by other ways of choosing a GPU.

Every way replays the same jobs (bench/workload.py) on the same nodes. A job that finds no room when it comes is
refused and gone, as with the daemon. The node is chosen in one way for all, the fullest that takes the job; what is
compared is the choice within the node, which is what a node's daemon decides.

    first-fit   the first GPUs that have room
    best-fit    those with the least left afterwards
    spread      those with the most room
    fgd         those where the fragmentation grows least: free memory that a job of the same mix could not use
                (fragmentation gradient descent, here within a node)
    ours        allocator/placement.py itself, binpack

    accepted_percent_*     of the jobs
    utilisation_percent_*  of the GPUs' memory, granted, from a tenth of the time on (it begins empty)
    linked_percent_*       of the jobs with 2 GPUs, on a pair with an NVLink between them: GPUs are bridged in pairs,
                           four of them on one host bridge

Replays with different seeds differ by about a per cent; so do first-fit, best-fit, fgd and ours in the first two
figures. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import heapq
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Final

import workload
from workload import Job

from gpuportion.allocator.devices import Gpu, Holding, Share
from gpuportion.allocator.placement import Placement, plan
from gpuportion.shim.request import Request
from gpuportion.sizes import MIB

GPUS: Final = 8
"""Of one node."""
PARTS: Final = 100
"""A GPU is so many parts: what the generator and the traces ask for, rounded up."""
SIZE: Final = PARTS * 800 * MIB
MIX: Final = 400
"""Jobs of the replay that stand for the mix that comes, for fgd."""


@dataclass(slots=True)
class Node:
    """Free parts of each GPU, and for ours the same as values of the product."""

    gpus: tuple[Gpu, ...]
    free: list[int] = field(default_factory=lambda: [PARTS] * GPUS)
    holdings: dict[int, tuple[Holding, ...]] = field(default_factory=dict)

    def take(self, number: int, chosen: Sequence[int], parts: int, alone: bool) -> None:
        for at in chosen:
            self.free[at] -= parts
        self.holdings[number] = tuple(
            Holding(str(number), Share(self.gpus[at].uuid, at, parts * SIZE // PARTS, alone)) for at in chosen
        )

    def give_back(self, number: int) -> None:
        for holding in self.holdings.pop(number):
            self.free[holding.share.index] += holding.share.limit * PARTS // SIZE


Choice = Callable[[Node, Job, int], "Sequence[int] | None"]
"""The GPUs of a node for a job of so many parts each; None: no room."""


def bridged() -> tuple[Gpu, ...]:
    """GPUs in NVLink pairs, four on a host bridge, two sockets."""

    def rank(one: int, other: int) -> int:
        return 104 if one // 2 == other // 2 else 30 if one // 4 == other // 4 else 10

    def links(at: int) -> dict[str, int]:
        return {f"GPU-{other}": rank(at, other) for other in range(GPUS) if other != at}

    return tuple(Gpu(at, f"GPU-{at}", "bench", SIZE, margin=0, links=links(at)) for at in range(GPUS))


def ours(node: Node, job: Job, parts: int) -> Sequence[int] | None:
    holdings = [holding for held in node.holdings.values() for holding in held]
    found = plan(node.gpus, holdings, _request(job, parts))
    return [share.index for share in found.shares] if isinstance(found, Placement) else None


def _request(job: Job, parts: int) -> Request:
    if parts == PARTS:
        return Request(count=job.gpus)
    return Request(fraction=Decimal(parts) / PARTS, count=job.gpus)


def first_fit(node: Node, job: Job, parts: int) -> Sequence[int] | None:
    return _cheapest(node, job, parts, lambda at: at)


def best_fit(node: Node, job: Job, parts: int) -> Sequence[int] | None:
    return _cheapest(node, job, parts, lambda at: node.free[at])


def spread(node: Node, job: Job, parts: int) -> Sequence[int] | None:
    return _cheapest(node, job, parts, lambda at: -node.free[at])


def _cheapest(node: Node, job: Job, parts: int, cost: Callable[[int], float]) -> Sequence[int] | None:
    fit = sorted((at for at in range(GPUS) if node.free[at] >= parts), key=lambda at: (cost(at), at))
    return fit[: job.gpus] if len(fit) >= job.gpus else None


class Fgd:
    """The mix of jobs is known to it, as it would be from what came before."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._mix = [(job.gpus, parts_of(job)) for job in jobs[:: max(1, len(jobs) // MIX)]]
        self._known: dict[tuple[int, ...], float] = {}

    def __call__(self, node: Node, job: Job, parts: int) -> Sequence[int] | None:
        if job.gpus > 1:
            return _cheapest(node, job, parts, lambda at: node.free[at])
        return _cheapest(node, job, parts, lambda at: self._after(node.free, at, parts))

    def _after(self, free: Sequence[int], at: int, parts: int) -> float:
        left = sorted([*free[:at], free[at] - parts, *free[at + 1 :]])
        key = tuple(left)
        if key not in self._known:
            self._known[key] = sum(_unusable(left, gpus, wanted) for gpus, wanted in self._mix)
        return self._known[key]


def _unusable(free: Sequence[int], gpus: int, parts: int) -> int:
    fit = [one for one in free if one >= parts]
    return sum(free) - sum(fit) if len(fit) >= gpus else sum(free)


def parts_of(job: Job) -> int:
    return max(1, -(-int(job.part * 1000) * PARTS // 1000))


@dataclass(slots=True)
class Result:
    accepted: int = 0
    pairs: int = 0
    linked: int = 0
    granted: float = 0.0
    """GPU seconds."""


def replay(jobs: Sequence[Job], nodes: int, choice: Choice) -> Result:
    """What becomes of the jobs."""
    cluster = [Node(bridged()) for _ in range(nodes)]
    ending: list[tuple[float, int, Node]] = []
    result = Result()
    begins, ends = _measured(jobs)
    for number, job in enumerate(jobs):
        while ending and ending[0][0] <= job.start:
            _, ended, node = heapq.heappop(ending)
            node.give_back(ended)
        found = _serve(cluster, number, job, choice)
        if found is None:
            continue
        node, chosen = found
        heapq.heappush(ending, (job.end, number, node))
        result.accepted += 1
        during = max(0.0, min(job.end, ends) - max(job.start, begins))
        result.granted += job.gpus * parts_of(job) / PARTS * during
        if job.gpus == 2:
            result.pairs += 1
            result.linked += chosen[0] // 2 == chosen[1] // 2
    return result


def _measured(jobs: Sequence[Job]) -> tuple[float, float]:
    first, last = jobs[0].start, jobs[-1].start
    return first + (last - first) / 10, last


def _serve(
    cluster: Sequence[Node], number: int, job: Job, choice: Choice
) -> tuple[Node, Sequence[int]] | None:
    parts = parts_of(job)
    for node in sorted(cluster, key=lambda node: sum(node.free)):
        if sum(one >= parts for one in node.free) < job.gpus:
            continue
        chosen = choice(node, job, parts)
        if chosen is not None:
            node.take(number, chosen, parts, alone=parts == PARTS)
            return node, chosen
    return None


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trace", type=Path, help="a CSV of the openb form, instead of the generator")
    parser.add_argument("--jobs", type=int, default=3000, help="of the generator (%(default)s)")
    parser.add_argument("--nodes", type=int, default=4, help=f"with {GPUS} GPUs each (%(default)s)")
    parser.add_argument("--load", type=float, default=1.5, help="asked for, of what there is (%(default)s)")
    parser.add_argument(
        "--seeds", type=int, default=5, help="replays; the figures are their means (%(default)s)"
    )
    options = parser.parse_args()
    series = [_jobs(options, seed) for seed in range(1, options.seeds + 1)]
    if any(len(jobs) < 2 for jobs in series):
        raise SystemExit("there are not two jobs to replay")
    count = sum(map(len, series))
    small = statistics.fmean(map(workload.under_half, series))
    print(
        f"{count} jobs in {len(series)} replays, {small:.0%} of them under half a GPU; "
        f"{options.nodes} nodes of {GPUS} GPUs, load {options.load:g}"
    )
    figures: dict[str, float] = {}
    for name, way in WAYS.items():
        figures |= _figures(name, series, options.nodes, way)
    print(json.dumps({"jobs": count, **figures}))
    return 0


WAYS: Final[dict[str, Callable[[Sequence[Job]], Choice]]] = {
    "first_fit": lambda _: first_fit,
    "best_fit": lambda _: best_fit,
    "spread": lambda _: spread,
    "fgd": Fgd,
    "ours": lambda _: ours,
}
"""Name -> the choice, for jobs whose mix it may know."""


def _jobs(options: argparse.Namespace, seed: int) -> list[Job]:
    capacity = options.nodes * GPUS
    if not options.trace:
        return workload.generated(options.jobs, capacity, options.load, seed)
    jobs, left_out = workload.traced(options.trace, GPUS, capacity, options.load, seed)
    print(f"{options.trace.name}: {left_out} jobs left out, {len(jobs)} kept")
    return jobs


def _figures(
    name: str, series: Sequence[Sequence[Job]], nodes: int, way: Callable[[Sequence[Job]], Choice]
) -> dict[str, float]:
    began = time.perf_counter()
    replays = [_percents(jobs, replay(jobs, nodes, way(jobs)), nodes) for jobs in series]
    took = time.perf_counter() - began
    means = {key: statistics.fmean(one[key] for one in replays) for key in replays[0]}
    shown = ", ".join(f"{key} {value:.1f} %" for key, value in means.items())
    print(f"{name.replace('_', '-'):10} {shown} ({took:.1f} s)", flush=True)
    return {f"{key}_percent_{name}": round(value, 2) for key, value in means.items()}


def _percents(jobs: Sequence[Job], result: Result, nodes: int) -> dict[str, float]:
    begins, ends = _measured(jobs)
    return {
        "accepted": 100 * result.accepted / len(jobs),
        "utilisation": 100 * result.granted / ((ends - begins) * nodes * GPUS),
        "linked": 100 * result.linked / max(1, result.pairs),
    }


if __name__ == "__main__":
    sys.exit(main())
