"""What the library, the daemon and the simulated driver take for granted of a driver's memory, measured on this one.
Mostly figures, each beside what simgpu assumes; claims where a wrong assumption would let a grant be exceeded.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any, Final

from gpuportion.simgpu.costs import DEFAULTS
from tests.gpu import context, grants, setting
from tests.gpu.claims import Report
from tests.gpu.meter import MIB, Meter, mib
from tests.gpu.session import EndedError, Session
from tests.gpu.setting import Setting

PAGE: Final = 2 * MIB
SHARED: Final = 256 * MIB
LIMIT: Final = grants.whole_mib(4 * 10**9)


def run(where: Setting, report: Report) -> None:
    """All of it."""
    cost = context.cost(where)
    report.figure("a context, by NVML", mib(cost), f"simgpu: {mib(DEFAULTS['context'])}", value=cost)
    told = _habits(where)
    if "problem" in told:
        report.claim("the driver's habits can be measured", False, "no", evidence=[told["problem"]])
    else:
        sizes(report, told)
        figures(report, told)
    shared(where, report)
    after_reset(where, report, cost)


def _habits(where: Setting) -> dict[str, Any]:
    command = [where.python, setting.source(where.pack, "tests/gpu/programs/habits.py")]
    done = grants.run(command, where.environment(), 60)
    for line in done.stdout.splitlines():
        if line.startswith("{"):
            return dict(json.loads(line))
    return {"problem": done.stderr}


def sizes(report: Report, told: Mapping[str, Any]) -> None:
    """What the library computes from; docs/libcap_mem.md says how."""
    page = max(told["granularity"].get("minimum", 0), PAGE)
    report.claim("the minimum granularity is a power of two up to 2 MiB", page == PAGE,
                 str(told["granularity"]), f"simgpu: {DEFAULTS['granularity']}", value=told["granularity"])  # fmt: skip
    large = {size: taken for size, taken in told["linear"].items() if int(size) >= MIB and taken}
    wrong = {size: taken for size, taken in large.items() if taken > -(-int(size) // page) * page}
    report.claim("blocks from 1 MiB take their size, rounded up to the page", not wrong, f"{len(large)} sizes",
                 value=told["linear"], evidence=[str(told["linear"])])  # fmt: skip
    arrays = told["arrays"]
    bad = {name: each for name, each in arrays.items() if each["taken"] > _charge(name) + page // 16}
    report.claim("arrays take no more than is charged for them", not bad,
                 ", ".join(f"{name}: {each['taken']}" for name, each in arrays.items())[:90],
                 value=arrays, evidence=[str(arrays)])  # fmt: skip


def _charge(name: str) -> int:
    """Rows padded to 512 bytes, planes to 16 rows, of four floats a texel; whole arrays to 64 KiB."""
    width, height, *depth = (int(word) for word in name.split(" x "))
    size = -(-width * 16 // 512) * 512 * -(-height // 16) * 16 * (depth[0] if depth else 1)
    return -(-size // DEFAULTS["array"]) * DEFAULTS["array"]


def figures(report: Report, told: Mapping[str, Any]) -> None:
    beside = {
        "slab": f"{DEFAULTS['slab']}",
        "handle": f"{DEFAULTS['granularity']}",
        "pool": f"chunks of {DEFAULTS['pool_chunk']}",
        "graph": "by its first launch; kept until trimmed",
        "second_context": f"{DEFAULTS['context']}",
        "modules": f"{DEFAULTS['module']}",
        "limits": "heap: by a launch",
    }
    for name, assumed in beside.items():
        value = told[name]
        text = ", ".join(f"{key}: {_short(each)}" for key, each in value.items())
        report.figure(f"habits: {name}", text[:100], f"simgpu: {assumed}", value=value)


def _short(value: Any) -> str:
    return mib(value) if isinstance(value, int) and value >= MIB else str(value)


def shared(where: Setting, report: Report) -> None:
    """Whether NVML counts what a process has opened, and did not allocate, as its own: the daemon charges a process
    what NVML sees beyond its ledger."""
    program = setting.source(where.pack, "tests/gpu/programs/sharing.py")
    env, errors = where.environment(), f"{where.scratch}/sharing"
    try:
        with (
            Meter(where.uuid) as meter,
            Session([where.python, program, "export"], env, f"{errors}-1") as owner,
        ):
            told = owner.hear()
            words = [told["ipc"], str(owner.pid), str(told["fd"])]
            with Session([where.python, program, "import", *words], env, f"{errors}-2") as importer:
                seen = []
                for _ in range(3):
                    step = importer.hear()
                    seen.append((step["step"], step.get("result", 0), meter.processes().get(importer.pid, 0)))
                    importer.go_on()
    except (EndedError, OSError) as problem:
        report.skip("NVML's count of shared memory", str(problem)[-120:])
        return
    for number, (step, result, used) in enumerate(seen[1:], 1):
        grown = used - seen[number - 1][2]
        counted = "the importer as well" if grown >= SHARED // 2 else "its owner alone"
        what = f"NVML counts memory that was opened by {step} with"
        report.figure(what, counted if not result else f"not opened: {result}",
                      "the daemon takes it for its owner's", value={"result": result, "grown": grown})  # fmt: skip


def after_reset(where: Setting, report: Report, cost: int) -> None:
    """The library asks its pools again after a context was reset: on this driver, is a pool then still one?"""
    program = setting.source(where.pack, "tests/gpu/programs/sharing.py")
    bare = _reset([where.python, program, "reset"], where.environment(), f"{where.scratch}/reset-bare.stderr")
    report.figure("a pool after its context was reset", bare, "simgpu: lives on", value=bare)
    grant = grants.make(where, "reset", LIMIT, cost)
    held = _reset(
        grant.python("sharing", "reset"), grants.environment(grant), f"{where.scratch}/reset.stderr"
    )
    same = held.keys() == bare.keys()
    report.claim(
        "a reset with pools ends with the library as without it", same, held, evidence=[str(bare), str(held)]
    )


def _reset(command: list[str], env: dict[str, str], errors: str) -> dict[str, Any]:
    """By step, what it said; where the process ends, its status."""
    told: dict[str, Any] = {}
    with Session(command, env, errors) as client:
        try:
            for _ in range(3):
                said = client.hear()
                told[said.pop("step")] = said
                client.go_on()
        except (EndedError, OSError) as problem:
            told["ended"] = os.linesep.join(str(problem).splitlines()[-2:])
    return told
