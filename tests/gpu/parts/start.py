"""How long a process takes from its start to its first CUDA context, with the library and without, in turns. A third
process holds the GPU meanwhile, so that the driver doesn't wake the device anew each time.
"""

from __future__ import annotations

import subprocess
import sys
import time
from typing import Final

from tests.gpu import context, grants, paired, setting
from tests.gpu.claims import Report
from tests.gpu.grants import Grant
from tests.gpu.session import Session
from tests.gpu.setting import Setting

ROUNDS: Final = 15
SECONDS: Final = 25.0
LIMIT: Final = grants.whole_mib(4 * 10**9)
STEPS: Final = "init\nretain 0\n"


def run(where: Setting, report: Report) -> None:
    """All of it."""
    grant = grants.make(where, "start", LIMIT, context.cost(where))
    hold = [sys.executable, setting.source(where.pack, "tests/gpu/programs/hold.py"), "1", "65536", "65536"]
    with Session(hold, where.environment(), f"{where.scratch}/start.stderr") as holder:
        holder.hear()
        try:
            pairs = _pairs(grant)
        except (OSError, ValueError) as problem:
            report.skip("time to the first context", str(problem))
            return
    ratio = paired.compare([pair[0] for pair in pairs], [pair[1] for pair in pairs])
    added = (ratio.with_ - ratio.without) * 1e3
    value = {"without": ratio.without, "with": ratio.with_, "pairs": len(pairs)}
    told = f"{ratio.without * 1e3:.1f} ms, {added:+.1f} ms, {ratio}"
    report.figure("time to the first context", told, value=value)
    refused = _once(grant, "linear 5000000000\n")[1].split()[-2:]
    report.claim("the grant held what was timed", refused[:1] == ["2"], " ".join(refused), "2 0")


def _pairs(grant: Grant) -> list[tuple[float, float]]:
    """Seconds without and with."""
    _once(grant), _bare(grant)
    deadline = time.monotonic() + SECONDS
    pairs = []
    for number in range(ROUNDS):
        first, second = (_bare, _once) if number % 2 else (_once, _bare)
        took = first(grant)[0], second(grant)[0]
        pairs.append(took if number % 2 else (took[1], took[0]))
        if time.monotonic() > deadline:
            break
    return pairs


def _bare(grant: Grant) -> tuple[float, str]:
    return _timed(grant.setting.program("gpu_client"), grant.setting.environment(), STEPS)


def _once(grant: Grant, more: str = "") -> tuple[float, str]:
    return _timed(grant.setting.program("gpu_client"), grants.environment(grant), STEPS + more)


def _timed(program: str, env: dict[str, str], steps: str) -> tuple[float, str]:
    """Seconds until it has ended, and what it said. ValueError: it could not do the steps."""
    begin = time.perf_counter()
    done = subprocess.run(
        [program, "dlsym"], env=env, input=steps, capture_output=True, text=True, timeout=30, check=False
    )
    took = time.perf_counter() - begin
    if not done.stdout.startswith("0\n0\n"):
        raise ValueError(f"the client said {done.stdout!r} {done.stderr.strip()[-200:]}")
    return took, done.stdout
