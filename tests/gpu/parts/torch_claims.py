"""PyTorch's three allocators under `gpuportion exec`, with a daemon of the suite's own: what `make torch-check` claims
of them on a simulated device, with NVML's word for what the device gave out.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any, Final

from tests.gpu import setting
from tests.gpu.claims import Report
from tests.gpu.meter import Meter, mib, until
from tests.gpu.own_daemon import Daemon
from tests.gpu.session import EndedError, Session
from tests.gpu.setting import Setting
from tests.torch import check

LEARNING: Final = 12.0
"""Seconds for the daemon to have learned what a context takes."""


def run(where: Setting, report: Report) -> None:
    """All three, where there is a PyTorch and the daemon runs."""
    if not setting.has(where, "torch"):
        report.skip("PyTorch's three allocators", f"{where.python} has no PyTorch")
        return
    if os.geteuid() != 0:
        report.skip("PyTorch's three allocators", "the daemon needs root")
        return
    try:
        with Daemon(where) as daemon:
            _learn(where, daemon, report)
            for name, settings in check.ALLOCATORS.items():
                _allocator(where, daemon, report, name, settings)
    except EndedError as problem:
        report.claim("the daemon runs on this machine", False, "it has ended", evidence=[str(problem)])


def exec_command(*words: str) -> list[str]:
    return [sys.executable, "-m", "gpuportion", "exec", "--gpu-memory", check.ASKED, "--quiet", "--", *words]


def exec_environment(where: Setting, daemon: Daemon, more: dict[str, str]) -> dict[str, str]:
    """The command's interpreter is another one than ours: it finds our modules by its own path alone."""
    return {**daemon.env, **more}


def _learn(where: Setting, daemon: Daemon, report: Report) -> None:
    """A first tenant, from which the daemon learns what a context takes here, as on any node."""
    hold = setting.source(where.pack, "tests/gpu/programs/hold.py")
    words = [where.python, hold, "1", str(64 << 20), str(64 << 20)]
    errors = f"{where.scratch}/learning.stderr"
    with Session(exec_command(*words), exec_environment(where, daemon, {}), errors) as tenant:
        tenant.hear()
        began = time.monotonic()
        learned = until((daemon.state / "context.json").exists, LEARNING)
        took = time.monotonic() - began
    known = (daemon.state / "context.json").read_text() if learned else "nothing"
    report.claim("the daemon learns what a context takes", learned, f"{took:.1f} s: {known}"[:120],
                 evidence=[daemon.log.read_text()])  # fmt: skip


def _allocator(where: Setting, daemon: Daemon, report: Report, name: str, settings: str) -> None:
    env = exec_environment(
        where, daemon, {"PYTORCH_CUDA_ALLOC_CONF": settings, "PYTORCH_ALLOC_CONF": settings}
    )
    program = setting.source(where.pack, "tests/torch/program.py")
    seen: dict[str, check.Seen] = {}
    errors = f"{where.scratch}/torch.stderr"
    with Meter(where.uuid) as meter:
        try:
            with Session(exec_command(where.python, program), env, errors) as client:
                while client.process.poll() is None:
                    facts = client.hear()
                    seen[facts.pop("step")] = check.Seen(facts, meter.now())
                    client.go_on()
        except EndedError as problem:
            if "one again" not in seen:
                report.claim(f"PyTorch, {name}", False, f"ended after {list(seen)}", evidence=[str(problem)])
                return
        gone = until(lambda: not meter.ours(), 10)
        peak = meter.peak()
    for claim in check.claims(seen):
        told: Any = {step: facts.facts for step, facts in seen.items()}
        report.claim(
            f"PyTorch, {name}: {claim.what}", claim.holds, claim.measured, evidence=[json.dumps(told)]
        )
    report.claim(
        f"PyTorch, {name}: NVML never above the grant", peak <= check.GRANT, mib(peak), mib(check.GRANT)
    )
    report.claim(f"PyTorch, {name}: ended, nothing is held", gone, "nothing" if gone else "something")
