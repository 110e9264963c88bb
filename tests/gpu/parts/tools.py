"""NVIDIA's tools on a client in a grant: each must end as it ends on the client without the library, and the client
must be held under it. Which of them can work at all on a machine, that machine says.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import Final

from tests.gpu import context, grants, setting
from tests.gpu.claims import Report
from tests.gpu.setting import Setting

TOOLS: Final = {
    "nsys": ["profile", "--trace=cuda", "--force-overwrite=true", "--output={out}"],
    "ncu": ["--target-processes=all", "--set=none", "--metrics=sm__cycles_elapsed.max"],
    "compute-sanitizer": ["--tool=memcheck"],
    "cuda-gdb": ["-q", "-batch", "-ex", "run", "--args"],
}
PLACES: Final = (
    "/usr/local/cuda/bin:/opt/nvidia/nsight-compute:/opt/nvidia/nsight-systems/bin:/usr/local/bin:/usr/bin"
)
SECONDS: Final = 20.0
LIMIT: Final = grants.whole_mib(4 * 10**9)


def run(where: Setting, report: Report) -> None:
    """Each tool that is here."""
    grant = grants.make(where, "tools", LIMIT, context.cost(where))
    for name, words in TOOLS.items():
        what = f"{name} works on a client in a grant"
        program = shutil.which(name) or shutil.which(name, path=PLACES)
        if program is None:
            report.skip(what, f"there is no {name}")
            continue
        filled = [word.format(out=f"{grant.setting.scratch}/{name}") for word in words]
        hello = [grant.setting.python, setting.source(grant.setting.pack, "tests/gpu/programs/hello.py")]
        bare = grants.run([program, *filled, *hello], grant.setting.environment(), SECONDS)
        held = grants.run([program, *filled, *grant.command(*hello)], grants.environment(grant), SECONDS)
        if not _said(bare):
            report.skip(what, f"nor without it: status {bare.returncode} {bare.stderr.strip()[-60:]}")
            continue
        total = _said(held).get("total")
        same = held.returncode == bare.returncode and total == grant.limit
        told = [
            str(bare.returncode),
            bare.stderr[-800:],
            str(held.returncode),
            held.stdout[-800:],
            held.stderr[-800:],
        ]
        report.claim(what, same, f"status {held.returncode}, total {total}",
                     f"status {bare.returncode}", evidence=told)  # fmt: skip


def _said(done: subprocess.CompletedProcess[str]) -> dict[str, int]:
    """What hello.py said under the tool, which says things of its own."""
    for line in done.stdout.splitlines():
        start = line.find('{"version"')
        if start >= 0:
            return dict(json.loads(line[start : line.rindex("}") + 1]))
    return {}
