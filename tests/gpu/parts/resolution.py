"""Every way to the driver leads through the library: this driver's symbols, its cuGetProcAddress row by row, what
frameworks and nvcc's programs do in a grant.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any, Final

from tests.gpu import context, elf, grants, setting
from tests.gpu.claims import Report
from tests.gpu.grants import Grant
from tests.gpu.setting import Setting

LIMIT: Final = grants.whole_mib(4 * 10**9)
OVER: Final = 6 * 10**9
"""Bytes: more than the grant."""
MODULES: Final = {
    "cupy": "cupy",
    "jax": "jax",
    "triton": "triton",
    "numba": "numba.cuda",
    "bindings": "cuda.bindings",
}
RUNTIMES: Final = ("static", "shared")


def run(where: Setting, report: Report) -> None:
    """All of it."""
    grant = grants.make(where, "resolution", LIMIT, context.cost(where))
    symbols(where, report)
    lookups(grant, report)
    for name, module in MODULES.items():
        framework(grant, report, name, module)
    nvcc(grant, report)


def symbols(where: Setting, report: Report) -> None:
    """Functions that this driver exports and our tables don't have: nobody would find them. The debugger's data
    (cudbg*) must not be in them, nor where the driver stops for one."""
    classes = Path(setting.source(where.pack, "libcap_mem/symbols/classes.tsv")).read_text()
    stops = set(re.findall(r"^(\w+)\tbreakpoint\t", classes, re.MULTILINE))
    for library, table, prefix in ((where.cuda, "cuda", "cu"), (where.nvml, "nvml", "nvml")):
        known = set(Path(setting.source(where.pack, f"libcap_mem/symbols/{table}.txt")).read_text().split())
        try:
            found = elf.exports(library)
        except (OSError, ValueError) as problem:
            report.skip(f"every function of {library} is ours too", str(problem))
            continue
        unknown = sorted(
            name
            for name, kind in found.items()
            if kind == "function" and name.startswith(prefix) and name not in known | stops
        )
        where.keep(
            f"{table}-symbols.txt", "".join(f"{name}\t{kind}\n" for name, kind in sorted(found.items()))
        )
        report.claim(f"every function of {Path(library).name} is ours too", not unknown,
                     f"{len(unknown)} of {len(found)} unknown", value=unknown, evidence=unknown)  # fmt: skip


def lookups(grant: Grant, report: Report) -> None:
    """cuGetProcAddress for each name, version and flag: the driver's answer, or our body of that very function."""
    where = grant.setting
    names = Path(setting.source(where.pack, "libcap_mem/symbols/cuda.txt"))
    bases = Path(where.scratch, "bases")
    stems = {re.sub(r"(_v\d+)?(_pt[sd][sz])?$", "", name) for name in names.read_text().split()}
    bases.write_text("\n".join(sorted(stems)))
    table = Path(setting.source(where.pack, "libcap_mem/hooks.def")).read_text()
    hooked = set(re.findall(r"^HOOK\((\w+),", table, re.MULTILINE))
    bare = _answers(where, where.cuda, bases, where.environment())
    ours = _answers(where, "libcuda.so.1", bases, grants.environment(grant))
    what = "cuGetProcAddress answers row by row as the driver"
    if isinstance(bare, str) or isinstance(ours, str):
        report.claim(what, False, "it can't be asked", evidence=[str(bare), str(ours)])
        return
    where.keep("getprocaddress.json", json.dumps(bare["lookup"]))
    wrong, swapped = [], set()
    for row, (rc, status, symbol) in bare["lookup"].items():
        expected = [rc, status, f"ours:{symbol}" if symbol in hooked else symbol]
        if ours["lookup"][row] != expected:
            wrong.append(f"{row}: {ours['lookup'][row]} instead of {expected}")
        swapped |= {symbol} & hooked
    unknown = sum(symbol == "?" for _, _, symbol in bare["lookup"].values())
    report.claim(what, not wrong and len(swapped) > 50, f"{len(wrong)} of {len(bare['lookup'])} differ",
                 evidence=wrong[:40])  # fmt: skip
    report.figure("answers that are no exported function", unknown, "drivers 535, 550: none")


def _answers(where: Setting, library: str, bases: Path, env: dict[str, str]) -> dict[str, Any] | str:
    program = setting.source(where.pack, "tests/native/driver_answers.py")
    names = setting.source(where.pack, "libcap_mem/symbols/cuda.txt")
    done = grants.run([sys.executable, program, library, where.cuda, names, str(bases)], env, 60)
    return dict(json.loads(done.stdout)) if done.stdout.startswith("{") else done.stderr


def framework(grant: Grant, report: Report, name: str, module: str) -> None:
    """It computes what it should, and is refused what goes beyond the grant."""
    what = f"{name} works, and is held"
    if not setting.has(grant.setting, module):
        report.skip(what, f"{grant.setting.python} has no {module}")
        return
    done = grants.run(grant.python("client", name, str(OVER)), grants.environment(grant), 60)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    told: dict[str, Any] = json.loads(lines[-1]) if lines else {"problem": f"status {done.returncode}"}
    refused = re.search("memory", told.get("refused", ""), re.IGNORECASE) is not None
    right = told.get("sum") == 2000.0 or (grant.setting.simulated and "sum" in told)
    holds = refused and right and "problem" not in told
    measured = told.get("problem") or f"sum {told['sum']:.0f}, refused: {told['refused'][:40] or 'no'}"
    report.claim(what, holds, str(measured)[:90], evidence=[str(told), done.stderr[-2000:]])


def nvcc(grant: Grant, report: Report) -> None:
    """A program with NVIDIA's runtime linked into it, and one with the shared one."""
    compiler = shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")
    source = setting.source(grant.setting.pack, "tests/gpu/programs/runtime_client.cu")
    for kind in RUNTIMES:
        what = f"a program of nvcc's, {kind} runtime, works, and is held"
        if compiler is None or grant.setting.simulated:
            report.skip(what, "a simulated driver runs no NVIDIA runtime" if compiler else "there is no nvcc")
            continue
        program = f"{grant.setting.scratch}/runtime-{kind}"
        built = grants.run(
            [compiler, f"-cudart={kind}", "-o", program, source], grant.setting.environment(), 60
        )
        if built.returncode:
            report.skip(what, f"nvcc: {built.stderr.strip()[-90:]}")
            continue
        done = grants.run([program, str(OVER)], grants.environment(grant), 30)
        holds = done.stdout.split() == ["2000", "2"]
        measured = done.stdout.strip() or f"status {done.returncode}"
        report.claim(what, holds, measured, "2000 2", evidence=[done.stderr])
