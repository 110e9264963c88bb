"""What this machine could hold a memory limit with itself: the kernel's dmem controller, NVML's own limits. Only that
it is there is told; nothing is set, and nothing of gpuportion depends on it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tests.gpu import elf
from tests.gpu.claims import Report
from tests.gpu.setting import Setting

CGROUP: Final = Path("/sys/fs/cgroup")
WORDS: Final = ("Cgroup", "MemoryLimit", "Dmem")
"""In names of NVML's functions."""


def run(where: Setting, report: Report) -> None:
    """Figures alone."""
    controllers = _read(CGROUP / "cgroup.controllers") or "no cgroup v2"
    report.figure("cgroup controllers", controllers, "dmem: the kernel's limits of device memory")
    report.figure("dmem.capacity", _read(CGROUP / "dmem.capacity") or "none")
    try:
        names = [name for name in elf.exports(where.nvml) if any(word in name for word in WORDS)]
    except (OSError, ValueError) as problem:
        report.skip("NVML's own limits", str(problem))
        return
    version = where.device["driver"]
    report.figure(
        "NVML's own limits", " ".join(sorted(names)) or "none", f"driver {version}; from 615 on, it is said"
    )


def _read(path: Path) -> str:
    try:
        return " ".join(path.read_text().split())[:120]
    except OSError:
        return ""
