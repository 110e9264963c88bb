"""Everybody who asks is told the same: the grant as the GPU, what the grant's processes hold as its use, and nobody
else's processes. Asked while a neighbour holds memory on the same GPU.
"""

from __future__ import annotations

from typing import Any, Final

from tests.gpu import context, grants, setting
from tests.gpu.claims import Report
from tests.gpu.grants import Grant
from tests.gpu.meter import mib
from tests.gpu.session import EndedError, Session
from tests.gpu.setting import Setting

LIMIT: Final = grants.whole_mib(4 * 10**9)
MIB: Final = 1 << 20
APART: Final = 2 * MIB
"""Bytes by which two ways may differ in what is used: nvidia-smi rounds to a MiB."""
GROWN: Final = 1024 * MIB
"""... and by which PyTorch's answer, given first, may: what it loads itself comes to be counted."""


def run(where: Setting, report: Report) -> None:
    """Preloaded and mounted."""
    cost = context.cost(where)
    for way in ("preloaded", "mounted"):
        grant = grants.make(where, f"views-{way}", LIMIT, cost, mounted=way == "mounted")
        neighbour = grants.make(where, f"beside-{way}", LIMIT, cost)
        hold = neighbour.python("hold", "5", str(64 * MIB), str(2048 * MIB))
        with Session(hold, grants.environment(neighbour), f"{neighbour.folder}/stderr") as tenant:
            tenant.hear()
            seen = _seen(grant)
        if isinstance(seen, str):
            report.claim(f"{way}: a client can be asked", False, "it has ended", evidence=[seen])
        else:
            _compare(report, way, seen, tenant.pid)


def _seen(grant: Grant) -> dict[str, Any] | str:
    words = ["torch"] if setting.has(grant.setting, "torch") else []
    try:
        with Session(
            grant.python("views", *words), grants.environment(grant), f"{grant.folder}/stderr"
        ) as client:
            return client.hear()
    except EndedError as problem:
        return str(problem)


def _compare(report: Report, way: str, seen: dict[str, Any], neighbour: int) -> None:
    pid = seen.pop("pid")
    by_cuda = seen["cuMemGetInfo"]
    for name, told in seen.items():
        what = f"{way}: {name} tells the grant, its use and its processes"
        if "missing" in told:
            report.skip(what, told["missing"])
            continue
        if "problem" in told:
            report.claim(what, False, told["problem"])
            continue
        apart = GROWN if name == "torch" else APART
        false = [
            f"total {told['total']}, device {told.get('device_total')}"
            for _ in range({told["total"], told.get("device_total", LIMIT)} != {LIMIT})
        ]
        if abs(told["used"] - by_cuda["used"]) > apart:
            false.append(f"used {told['used']}, by cuMemGetInfo {by_cuda['used']}")
        listed = {int(each) for each in told.get("processes", {pid: 0})}
        if listed != {pid}:
            false.append(f"processes {listed}; this one is {pid}, the neighbour {neighbour}")
        report.claim(
            what,
            not false,
            f"{mib(told['used'])} of {mib(told['total'])}",
            mib(LIMIT),
            evidence=[*false, str(told)],
        )
