"""How many requests the MIG planner can serve, how seldom it has to make an instance, and how long it thinks.

Five mixes of requests, three loads, nodes of 8 and of 64 A100-40GB, 20 seeds: the same trace goes to the planner and
to the plain ways of placing, all of which keep idle instances and follow the planner's order (an idle instance of the
profile, a place that needs no eviction, the fewest evictions); they differ in which of equal choices they take:

    first_fit   the first GPU, the first slice
    best_fit    the fullest GPU, the first slice
    spread      the emptiest GPU, the first slice
    eager       first_fit that keeps nothing: every instance is removed at its end, as other tools do
    movable     no way of placing: what is served if running containers can be moved about (mig_movable.py)

    settings              mix, load and GPUs: so many were compared
    worst_vs_best_fit     points of acceptance by which the planner is ahead of best_fit in its worst setting
    median_vs_first_fit   points by which it is ahead of first_fit, the median of the settings
    median_by_load        the same of the settings of each load
    median_movable        points by which movable is ahead of first_fit: about as much as there is to be had
    creates_avoided       of the requests that it served, those that needed no create and no destroy; median
    optimum_gap           points behind the best possible placing on small nodes, the mean of their settings
    plan_ms               median of one plan on 16 GPUs, at load 1

No daemon and no GPU is involved. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Final, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

from mig_movable import Movable
from mig_node import KEYS, Counts, Mix, Node, Planned, Simple, play, trace
from mig_optimum import Optimum
from tests.support.mig_boards import A100, board, gpu

from gpuportion.allocator.mig.asks import ask_of, fitting
from gpuportion.allocator.mig.profiles import Profile
from gpuportion.shim.request import Request

SEEDS: Final = 20
LOADS: Final = (0.7, 1.0, 1.3)
SIZES: Final = {8: 1500, 64: 2000}
"""GPUs, and requests of a trace: nine mean lives of a request or more on 64 GPUs, of which three fill the node."""

SMALL: Final = {"A100": (A100, 1), "2 A30": ("NVIDIA A30", 2)}
SMALL_LENGTH: Final = 2000
THINKING: Final = (16, 3000)


def named(**weights: float) -> Mix:
    """Requests for profiles by name: `g5_1` is 1g.5gb."""
    return {Request(mig=f"{key[-1]}g.{key[1:-2]}gb"): weight for key, weight in weights.items()}


MIXES: Final[Mapping[str, Mix]] = {
    "uniform": named(g5_1=1, g10_1=1, g10_2=1, g20_3=1, g20_4=1, g40_7=1),
    "small": named(g5_1=50, g10_1=10, g10_2=20, g20_3=12, g20_4=3, g40_7=5),
    "big": named(g5_1=10, g10_1=5, g10_2=15, g20_3=30, g20_4=20, g40_7=20),
    "bimodal": named(g5_1=50, g20_3=40, g20_4=5, g40_7=5),
    # By amounts, as most people ask: evenly spread over the logarithm of 1 to 40 GB.
    "amounts": {Request(memory=(int(40 ** (k / 100) * 953) << 20,)): 1.0 for k in range(101)},
}


class Setting(NamedTuple):
    mix: str
    load: float
    gpus: int


def compared(setting: Setting, seed: int) -> dict[str, Counts]:
    """Every way of placing on one trace."""
    cut = board(A100)
    mix, load, gpus = setting
    arrivals = trace(cut, MIXES[mix], load, gpus, SIZES[gpus], f"{mix} {load} {gpus} {seed}")
    ways: dict[str, Node] = {way: Simple(cut, gpus, key) for way, key in KEYS.items()}
    ways["eager"] = Simple(cut, gpus, KEYS["first_fit"], keep=False)
    ways["movable"] = Movable(cut, gpus)
    ways["planner"] = Planned([gpu(index) for index in range(gpus)])
    return {way: play(node, arrivals) for way, node in ways.items()}


class SmallSetting(NamedTuple):
    node: str
    mix: str
    load: float


def against_optimum(setting: SmallSetting, seeds: int) -> tuple[float, float]:
    """Acceptance of the planner and of the best possible way, on the same traces."""
    model, gpus = SMALL[setting.node]
    cut = board(model)
    mix = MIXES[setting.mix] if model == A100 else _scaled(setting.mix)
    optimum = Optimum(cut, gpus, _rates(mix, model, setting.load * gpus))
    planner, best = Counts(), Counts()
    for seed in range(seeds):
        arrivals = trace(cut, mix, setting.load, gpus, SMALL_LENGTH, f"{setting} {seed}")
        for total, node in (
            (planner, Planned([gpu(k, model) for k in range(gpus)])),
            (best, optimum.fresh()),
        ):
            counts = play(node, arrivals)
            total.asked += counts.asked
            total.served += counts.served
    return planner.acceptance, best.acceptance


def _scaled(mix: str) -> Mix:
    """The mix in the profiles of an A30: those of as many eighths of the board, rounded up to its quarters."""
    own = {1: "1g.6gb", 2: "1g.6gb", 4: "2g.12gb", 8: "4g.24gb"}
    found: dict[Request, float] = {}
    for want, weight in MIXES[mix].items():
        request = Request(mig=own[fitting(board(A100), ask_of(want))[0].size])
        found[request] = found.get(request, 0.0) + weight
    return found


def _rates(mix: Mix, model: str, load: float) -> dict[Profile, float]:
    """Arrivals of each profile in the mean life of a request."""
    cut = board(model)
    weights: dict[Profile, float] = {}
    for want, weight in mix.items():
        profile = fitting(cut, ask_of(want))[0]
        weights[profile] = weights.get(profile, 0.0) + weight
    slices = sum(profile.size * weight for profile, weight in weights.items())
    return {profile: load * cut.slices * weight / slices for profile, weight in weights.items()}


def thinking() -> list[float]:
    """Milliseconds of each plan."""
    gpus, length = THINKING
    node = Planned([gpu(index) for index in range(gpus)])
    play(node, trace(board(A100), MIXES["uniform"], 1.0, gpus, length, "thinking"))
    return [seconds * 1e3 for seconds in node.took]


def mean(counts: Sequence[Counts]) -> float:
    return 100 * statistics.mean(each.acceptance for each in counts)


def show(setting: Setting, runs: Sequence[Mapping[str, Counts]]) -> dict[str, float]:
    """One line; acceptance in per cent of each way, and `avoided` of the planner."""
    found = {way: mean([run[way] for run in runs]) for way in runs[0]}
    avoided = 100 * statistics.mean(run["planner"].avoided for run in runs)
    ways = "  ".join(f"{way} {value:5.2f}" for way, value in found.items())
    gain = found["planner"] - found["first_fit"]
    print(
        f"{setting.mix:8} load {setting.load} {setting.gpus:2} GPUs: {ways}  "
        f"ahead {gain:+5.2f}  no create {avoided:4.1f} %",
        flush=True,
    )
    return {**found, "avoided": avoided}


def gaps(pool: ProcessPoolExecutor, seeds: int) -> float:
    """The mean distance to the optimum in points, each printed."""
    settings = [SmallSetting(node, mix, load) for node in SMALL for mix in MIXES for load in LOADS]
    results = pool.map(against_optimum, settings, [seeds] * len(settings))
    found = []
    for (node, mix, load), (own, best) in zip(settings, results, strict=True):
        found.append(100 * (best - own))
        ways = f"planner {100 * own:5.2f}  optimum {100 * best:5.2f}"
        print(f"{mix:8} load {load} {node:5}: {ways}", flush=True)
    return statistics.mean(found)


def ahead(way: str, rows: Iterable[Mapping[str, float]]) -> float:
    """Points by which a way is ahead of first_fit, the median."""
    return round(statistics.median(row[way] - row["first_fit"] for row in rows), 2)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=SEEDS, help="traces of each setting (%(default)s)")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="at once (%(default)s)")
    options = parser.parse_args()
    took = thinking()
    settings = [Setting(mix, load, gpus) for gpus in SIZES for mix in MIXES for load in LOADS]
    with ProcessPoolExecutor(options.processes) as pool:
        jobs = {
            setting: [pool.submit(compared, setting, seed) for seed in range(options.seeds)]
            for setting in settings
        }
        of = {setting: show(setting, [job.result() for job in each]) for setting, each in jobs.items()}
        gap = gaps(pool, options.seeds)
    rows = [*of.values()]
    by_load = {str(load): [row for setting, row in of.items() if setting.load == load] for load in LOADS}
    result = {
        "settings": len(rows),
        "worst_vs_best_fit": round(min(row["planner"] - row["best_fit"] for row in rows), 2),
        "median_vs_first_fit": ahead("planner", rows),
        "median_by_load": {load: ahead("planner", some) for load, some in by_load.items()},
        "median_movable": ahead("movable", rows),
        "creates_avoided": round(statistics.median(row["avoided"] for row in rows), 1),
        "optimum_gap": round(gap, 2),
        "plan_ms": round(statistics.median(took), 3),
        "plan_p99_ms": round(statistics.quantiles(took, n=100)[98], 3),
        "median_vs_eager": round(statistics.median(row["planner"] - row["eager"] for row in rows), 2),
        "seeds": options.seeds,
    }
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
