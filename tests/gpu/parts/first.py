"""First contact: is the mechanism accepted at all? The library preloaded, and mounted over the driver's files, under a
plain C client, one in Python, PyTorch and nvidia-smi. What fails is told with all that is known: run this first.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping
from typing import Any, Final

from tests.gpu import grants, setting
from tests.gpu.claims import Report
from tests.gpu.grants import Grant
from tests.gpu.meter import mib
from tests.gpu.setting import Setting

LIMIT: Final = grants.whole_mib(4 * 10**9)
CONTEXT: Final = 512 << 20
"""What is charged for a context here: more than most take."""
C_STEPS: Final = (
    "version",
    "init",
    "retain 0",
    "info",
    "linear 67108864",
    "info",
    f"linear {LIMIT}",
    "free 0",
)
OUT_OF_MEMORY: Final = 2


def run(where: Setting, report: Report) -> None:
    """All of it."""
    kernel_log = _kernel_log()
    bare = _told(where, [where.python, _hello(where)], where.environment())
    usable = "problem" not in bare
    report.claim("without the library, a client works here", usable, _brief(bare), evidence=_all(bare))
    for way in ("preloaded", "mounted"):
        grant = grants.make(where, f"first-{way}", LIMIT, CONTEXT, mounted=way == "mounted")
        _c_client(grant, way, report)
        _python_client(grant, way, report, bare)
        _torch(grant, way, report)
        _smi(grant, way, report)
    new = [line for line in _kernel_log() if line not in kernel_log]
    report.claim("the kernel's log has no new line of the driver", not new, f"{len(new)} lines", evidence=new)


def _hello(where: Setting) -> str:
    return setting.source(where.pack, "tests/gpu/programs/hello.py")


def _c_client(grant: Grant, way: str, report: Report) -> None:
    """The answers of cap_client, a line a step."""
    command = grant.command(grant.setting.program("gpu_client"), "dlsym")
    try:
        done = subprocess.run(
            command, env=grants.environment(grant), input="\n".join(C_STEPS) + "\n", capture_output=True, text=True,
            timeout=30, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as problem:
        report.claim(f"{way}: a C client is held", False, type(problem).__name__, evidence=[str(problem)])
        return
    if "GLIBC_" in done.stderr:
        report.skip(f"{way}: a C client is held", done.stderr.strip().splitlines()[-1])
        return
    rows = [[int(word) for word in line.split()] for line in done.stdout.splitlines() if line[:1].isdigit()]
    results = [row[0] for row in rows]
    holds = (
        results == [0, 0, 0, 0, 0, 0, OUT_OF_MEMORY, 0]
        and rows[3][2] == rows[3][3] == LIMIT
        and rows[3][1] - rows[5][1] == 64 << 20
    )
    told = f"results {results}, total {mib(rows[3][2]) if len(rows) > 3 else 'unknown'}"
    seen = [f"{step}: {row}" for step, row in zip(C_STEPS, rows, strict=False)]
    report.claim(f"{way}: a C client is held", holds, told, evidence=[*seen, done.stdout, done.stderr])


def _python_client(grant: Grant, way: str, report: Report, bare: Mapping[str, Any]) -> None:
    told = _told(grant.setting, grant.python("hello"), grants.environment(grant))
    lost = told.get("free", 0) - told.get("after 64 MiB", 0)
    holds = (
        "problem" not in told
        and told["total"] == LIMIT
        and told["version"] == bare.get("version")
        and told["over"] == OUT_OF_MEMORY
        and lost == 64 << 20
        and told["memory"]
    )
    report.claim(
        f"{way}: a Python client is held", bool(holds), _brief(told), mib(LIMIT), evidence=_all(told)
    )
    _loaded(grant, way, report, told)


def _loaded(grant: Grant, way: str, report: Report, told: Mapping[str, Any]) -> None:
    """One copy of our library, by whatever path, and the real driver beside it."""
    paths = told.get("loaded", [])
    report.figure(f"{way}: files that are loaded", " ".join(paths), value=paths)
    if way == "preloaded":
        ours = [path for path in paths if path.startswith(str(grant.folder))]
        report.claim(f"{way}: our library and the real driver are loaded",
                     any(path.endswith("libcuda.so.1") for path in ours) and grant.setting.cuda in paths,
                     f"{len(ours)} of ours", evidence=paths)  # fmt: skip


def _torch(grant: Grant, way: str, report: Report) -> None:
    what = f"{way}: PyTorch is held"
    if not setting.has(grant.setting, "torch"):
        report.skip(what, f"{grant.setting.python} has no PyTorch")
        return
    words = ["torch", "simulated"] if grant.setting.simulated else ["torch"]
    told = _told(grant.setting, grant.python("hello", *words), grants.environment(grant))
    if grant.setting.simulated and "problem" not in told:
        told = {**told, "sum": 2.0 * (1 << 20), "product": 256.0}  # its kernels do nothing
    holds = (
        "problem" not in told
        and told["total"] == told["properties"] == LIMIT
        and told["sum"] == 2.0 * (1 << 20)
        and told["product"] == 256.0
        and told["over"] == "OutOfMemoryError"
    )
    report.claim(what, bool(holds), _brief(told), mib(LIMIT), evidence=_all(told))


def _smi(grant: Grant, way: str, report: Report) -> None:
    what = f"{way}: nvidia-smi shows the grant"
    smi = shutil.which("nvidia-smi") or shutil.which("nvidia-smi", path="/usr/local/nvidia/bin:/usr/bin")
    if smi is None:
        report.skip(what, "there is no nvidia-smi")
        return
    query = [
        "--query-gpu=memory.total,memory.used",
        "--format=csv,noheader,nounits",
        f"--id={grant.setting.uuid}",
    ]
    done = grants.run(grant.command(smi, *query), grants.environment(grant))
    holds = done.returncode == 0 and done.stdout.split(",")[0].strip() == str(LIMIT >> 20)
    report.claim(
        what, holds, done.stdout.strip() or done.returncode, mib(LIMIT), evidence=[done.stdout, done.stderr]
    )


def _told(where: Setting, command: list[str], env: dict[str, str]) -> dict[str, Any]:
    """What hello.py said."""
    done = grants.run(command, env)
    for line in reversed(done.stdout.splitlines()):
        if line.startswith("{"):
            told: dict[str, Any] = json.loads(line)
            return {**told, "stderr": done.stderr}
    return {
        "problem": f"it ended with status {done.returncode}",
        "stdout": done.stdout,
        "stderr": done.stderr,
    }


def _brief(told: Mapping[str, Any]) -> str:
    if "problem" in told:
        return str(told["problem"])
    version = told.get("torch") or f"CUDA {told['version'][1]}"
    return f"{version}, total {mib(told['total'])}, free {mib(told['free'])}"


def _all(told: Mapping[str, Any]) -> list[str]:
    return [f"{key}: {value}" for key, value in told.items()]


def _kernel_log() -> list[str]:
    """What the driver has written there; nothing where it can't be read."""
    done = grants.run(["dmesg"], {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}) if shutil.which("dmesg") else None
    return [line for line in done.stdout.splitlines() if "NVRM" in line or "Xid" in line] if done else []
