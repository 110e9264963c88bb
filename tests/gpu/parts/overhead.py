"""What the library costs, paired: single calls of the driver in one process (gpu_bench), and PyTorch's steps in two
processes, one of them in a grant, that take turns on the same GPU.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Final

from tests.gpu import context, grants, paired, setting
from tests.gpu.claims import Report
from tests.gpu.grants import Grant
from tests.gpu.paired import Ratio
from tests.gpu.session import EndedError, Session
from tests.gpu.setting import Setting

GRANT: Final = grants.whole_mib(16 * 10**9)
BATCHES: Final = "80"
LAUNCHES: Final = {"cuLaunchKernel": 1.01, "cuGraphLaunch": 1.01}
"""The highest ratio that is claimed."""
STEPS: Final = {
    "train": ("a training step", 10),
    "tokens": ("a token, eager", 40),
    "graphed": ("a token, graphed", 200),
}
"""How many a batch."""
STEP: Final = 1.005
ROUNDS: Final = 30
SECONDS: Final = 60.0
"""For the rounds of PyTorch's steps."""


def run(where: Setting, report: Report) -> None:
    """All of it."""
    grant = grants.make(where, "overhead", GRANT, context.cost(where))
    calls(grant, report)
    if not setting.has(where, "torch"):
        report.skip("PyTorch's steps", f"{where.python} has no PyTorch")
        return
    try:
        steps(grant, report)
    except EndedError as problem:
        report.claim("PyTorch's steps", False, "a client has ended", evidence=[str(problem)])


def calls(grant: Grant, report: Report) -> None:
    where = grant.setting
    program = [
        where.program("gpu_bench"),
        where.cuda,
        str(grant.folder / "libcuda.so.1"),
        "4" if where.brief else BATCHES,
    ]
    done = grants.run(program, where.environment(), 60)
    if done.returncode:
        if "GLIBC_" in done.stderr:
            report.skip("single calls", done.stderr.strip().splitlines()[-1])
        else:
            report.claim("single calls", False, f"status {done.returncode}", evidence=[done.stderr])
        return
    timed: dict[str, tuple[list[float], list[float]]] = defaultdict(lambda: ([], []))
    for line in done.stdout.splitlines():
        name, without, with_ = line.split()
        timed[name][0].append(float(without))
        timed[name][1].append(float(with_))
    for name, (native, ours) in timed.items():
        ratio = paired.compare(native, ours)
        told = f"{ratio.without:.0f} ns, {ratio.with_ - ratio.without:+.0f} ns, {ratio}"
        _judge(report, name.replace("_", " "), ratio, LAUNCHES.get(name), told)


def _judge(report: Report, what: str, ratio: Ratio, most: float | None, told: str) -> None:
    """A claim where one is made and the timings decide it; else a figure. A simulated driver's calls cost nothing to
    speak of: a ratio to them says nothing."""
    value = {"without": ratio.without, "with": ratio.with_, "low": ratio.low, "high": ratio.high}
    holds = ratio.verdict(most) if most is not None else None
    if holds is None or most is None or setting.handed().simulated:
        unsure = f"claimed: {most - 1:.1%}; this run doesn't decide it" if most is not None else ""
        report.figure(what, told, unsure, value=value)
    else:
        report.claim(what, holds, told, f"at most {most - 1:+.1%}", value=value)


def steps(grant: Grant, report: Report) -> None:
    """Turns of one batch each, the order changing from round to round."""
    where = grant.setting
    words = ["elementwise"] if where.simulated else []
    program = [where.python, setting.source(where.pack, "tests/gpu/programs/train.py"), *words]
    environments = (where.environment(), grants.environment(grant))
    with (
        Session(program, environments[0], f"{where.scratch}/train-bare.stderr") as bare,
        Session(grant.command(*program), environments[1], f"{where.scratch}/train.stderr") as held,
    ):
        for client in (bare, held):
            client.hear()
        deadline = time.monotonic() + SECONDS
        timed: dict[str, list[tuple[float, float]]] = {way: [] for way in STEPS}
        for way in STEPS:
            _turn((bare, held), way, 2, swapped=False)
        for number in range(ROUNDS):
            for way in STEPS:
                timed[way].append(_turn((bare, held), way, STEPS[way][1], swapped=number % 2 == 1))
            if time.monotonic() > deadline:
                break
    for way, pairs in timed.items():
        ratio = paired.compare([pair[0] for pair in pairs], [pair[1] for pair in pairs])
        told = f"{ratio.without * 1e6:.0f} us, {ratio}, {len(pairs)} pairs"
        _judge(report, STEPS[way][0], ratio, STEP, told)


def _turn(clients: Sequence[Session], way: str, count: int, *, swapped: bool) -> tuple[float, float]:
    """Seconds a step without and with."""
    seconds = [0.0, 0.0]
    for which in (1, 0) if swapped else (0, 1):
        clients[which].go_on(f"{way} {count}")
        seconds[which] = float(clients[which].hear()["seconds"])
    return seconds[0], seconds[1]
