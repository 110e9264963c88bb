"""The calls of the driver that each way of allocating comes to: golden traces, for the simulated driver and for whoever
changes a hook. A tracer of the suite's own stands in the library's place, so that the calls are the program's.

Claims only that what allocates is hooked; the order of calls is told, and kept in traces.json.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

from tests.gpu import grants, setting
from tests.gpu.claims import Report
from tests.gpu.setting import Setting
from tests.torch.check import ALLOCATORS

ALLOCATES: Final = re.compile(
    r"cuMem(Alloc(?!Host)\w*|Create|PoolCreate)|cu(Array|Array3D|MipmappedArray)Create(_v2)?|cuCtxCreate\w*|"
    r"cuGraphAdd(MemAllocNode|Node\w*)|cuDevicePrimaryCtxRetain"
)
"""Functions that take device memory: each must have a body of ours."""


def run(where: Setting, report: Report) -> None:
    """By the driver, by NVIDIA's runtime, and by PyTorch's allocators."""
    tracer = where.program("libgpu_trace.so")
    if not Path(tracer).exists():
        report.skip("the calls of each allocation", "the tracer is written for x86-64")
        return
    kept: dict[str, Any] = {}
    kept["driver"] = _trace(where, report, "the driver", ["driver"])
    kept["runtime"] = _trace(where, report, "NVIDIA's runtime", ["runtime"])
    if setting.has(where, "torch"):
        for name, settings in ALLOCATORS.items():
            kept[name] = _trace(where, report, f"PyTorch, {name}", ["torch"], settings)
    else:
        report.skip("PyTorch's calls", f"{where.python} has no PyTorch")
    where.keep("traces.json", json.dumps(kept, indent=1))


def _trace(where: Setting, report: Report, who: str, words: list[str], settings: str = "") -> dict[str, Any]:
    tracer = where.program("libgpu_trace.so")
    program = setting.source(where.pack, "tests/gpu/programs/traced.py")
    env = {"LD_PRELOAD": tracer, "GPUPORTION_TRACE_DRIVER": where.cuda}
    if settings:
        env |= {"PYTORCH_CUDA_ALLOC_CONF": settings, "PYTORCH_ALLOC_CONF": settings}
    done = grants.run([where.python, program, tracer, *words], where.environment(env), 60)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    told: dict[str, Any] = json.loads(lines[-1]) if lines else {"problem": done.stderr[-500:]}
    problem = told.pop("problem", "")
    if "no libcudart" in problem or (where.simulated and "answers" in problem):
        report.skip(
            f"{who}: the calls of each allocation", problem
        )  # NVIDIA's runtime runs on no simulated driver
        return told
    _judge(where, report, who, told, problem)
    return told


def _judge(where: Setting, report: Report, who: str, told: dict[str, Any], problem: str) -> None:
    hooked = _hooked(where)
    called = {call.split(" ")[0] for step in told.values() for call in step["calls"]}
    open_ways = sorted(call for call in called if ALLOCATES.fullmatch(call) and call not in hooked)
    allocating = sorted(call for call in called if call in hooked and ALLOCATES.fullmatch(call))
    seen = " ".join(allocating)[:80] or "nothing was called"
    holds = not open_ways and bool(allocating) and not problem
    report.claim(f"{who}: what allocates is hooked", holds, seen, evidence=[problem, " ".join(open_ways)])
    for step, each in told.items():
        if step != "start":
            report.figure(f"{who}: {step}", f"{each['count']}: {' '.join(each['calls'])}"[:110], value=each)


def _hooked(where: Setting) -> set[str]:
    table = Path(setting.source(where.pack, "libcap_mem/hooks.def")).read_text()
    return set(re.findall(r"^HOOK\((\w+),", table, re.MULTILINE))
