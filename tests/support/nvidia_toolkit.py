"""NVIDIA's container toolkit as far as an engine meets it: its programs on PATH, its CDI spec. Stand-ins, all of it.

folder/
    nvidia-container-runtime-hook ...   nvidia_stand_in.py, under each name
    next driver ran                     see there
    cdi/nvidia.json                     what `nvidia-ctk cdi generate` would have written for an engine
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any, Final

HOOKS: Final = ("nvidia-container-runtime-hook", "nvidia-container-toolkit", "nvidia-cdi-hook", "nvidia-ctk")
RUNTIMES: Final = (
    "nvidia-container-runtime",
    "nvidia-container-runtime.cdi",
    "nvidia-container-runtime.legacy",
)
MORE_FILES: Final = (
    "/usr/bin/nvidia-smi",
    "/usr/lib/x86_64-linux-gnu/libnvidia-ptxjitcompiler.so.550.54.15",
    "/run/nvidia-persistenced/socket",
    "/lib/firmware/nvidia/550.54.15/gsp_ga10x.bin",
)
"""What a driver has and the simulated one has not: of these our daemon's own CDI spec says nothing."""


class Toolkit:
    """`next_runtime`: what nvidia-container-runtime becomes."""

    def __init__(self, folder: Path, next_runtime: str) -> None:
        self.folder = folder
        self.cdi = folder / "cdi"
        self.cdi.mkdir(parents=True)
        program = Path(__file__).with_name("nvidia_stand_in.py").read_text()
        for name in (*HOOKS, *RUNTIMES):
            path = folder / name
            path.write_text(f"#!{os.path.realpath(sys.executable)} -ISE\n{program}")
            path.chmod(0o755)
        (folder / "next").write_text(next_runtime)
        (folder / "driver").write_text("a file of the driver\n")

    def program(self, name: str) -> str:
        return str(self.folder / name)

    def ran(self) -> list[str]:
        """Which of the programs were started since the last question."""
        record = self.folder / "ran"
        names = record.read_text().split() if record.exists() else []
        record.unlink(missing_ok=True)
        return names

    def write_cdi(self, driver: Path) -> None:
        """For engines, on top of the simulated `driver`'s own spec: hooks, and files by other names."""
        spec = json.loads(driver.read_text())
        edits: dict[str, Any] = spec["containerEdits"]
        options = ["ro", "nosuid", "nodev", "rbind", "rprivate"]
        for path in MORE_FILES:
            mount = {"hostPath": str(self.folder / "driver"), "containerPath": path, "options": options}
            edits["mounts"].append(mount)
        edits["hooks"] = [
            {
                "hookName": "createContainer",
                "path": self.program(name),
                "args": [name, "update-ldcache"],
                "env": ["NVIDIA_CTK_DEBUG=false"],
            }
            for name in ("nvidia-cdi-hook", "nvidia-ctk")
        ]
        (self.cdi / "nvidia.json").write_text(json.dumps(spec))

    def write_hooks_d(self, folder: Path) -> None:
        """As the toolkit's podman hook was installed: a prestart hook on every container."""
        folder.mkdir()
        hook = {
            "path": self.program("nvidia-container-toolkit"),
            "args": ["nvidia-container-toolkit", "prestart"],
        }
        text = {"version": "1.0.0", "hook": hook, "when": {"always": True}, "stages": ["prestart"]}
        (folder / "oci-nvidia-hook.json").write_text(json.dumps(text))

    def link(self, name: str, to: str) -> str:
        """Another name for one of the programs, in a folder of its own."""
        path = self.folder / "links" / name
        path.parent.mkdir(exist_ok=True)
        path.unlink(missing_ok=True)
        path.symlink_to(self.folder / to)
        return str(path)

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
