"""A grant on the first GPU, without a daemon: pages, our libraries and the real driver's place in one folder.

Two ways to bring the library in, as in a container: preloaded, and mounted over the driver's files in a private mount
namespace. Knows nothing of what runs in it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.gpu.setting import Setting, source

PLACED: Final = {
    "libcuda.so.1": "libcap_mem.so",
    "libnvidia-ml.so.1": "libcap_nvml.so",
    "libcuda.so": "libcap_alias.so",
}
"""Names in the folder -> the libraries of the installation."""
MIB: Final = 1 << 20


@dataclass(frozen=True)
class Grant:
    setting: Setting
    folder: Path
    limit: int
    context: int
    mounted: bool = False

    def environment(self) -> dict[str, str]:
        """Of a process in the grant."""
        if self.mounted:
            return self.setting.environment()
        preload = ":".join(str(self.folder / name) for name in PLACED)
        return self.setting.environment({"LD_PRELOAD": preload})

    def command(self, *words: str) -> list[str]:
        """What starts `words` in the grant, in its environment."""
        if not self.mounted:
            return list(words)
        wrapper = source(self.setting.pack, "tests/gpu/programs/mounted.py")
        return [sys.executable, wrapper, str(self.folder), self.setting.cuda, self.setting.nvml, *words]

    def python(self, program: str, *words: str) -> list[str]:
        """What starts one of the suite's programs in the grant."""
        file = source(self.setting.pack, f"tests/gpu/programs/{program}.py")
        return self.command(self.setting.python, file, *words)


def make(setting: Setting, name: str, limit: int, context: int, *, mounted: bool = False) -> Grant:
    """A grant of `limit` bytes, of which `context` are charged for a process's context."""
    folder = Path(setting.scratch, name)
    driver = folder / "driver"
    driver.mkdir(parents=True)
    for aside, real in (("libcuda.so.1", setting.cuda), ("libnvidia-ml.so.1", setting.nvml)):
        if mounted:
            (driver / aside).touch()
        else:
            os.symlink(real, driver / aside)
    for place, library in PLACED.items():
        shutil.copy(setting.library(library), folder / place)
    gpu = f"{setting.uuid.removeprefix('GPU-').replace('-', '')}:{limit}:{context}"
    places = [str(driver / name) for name in ("libcuda.so.1", "libnvidia-ml.so.1")]
    subprocess.run([setting.program("gpu_pages"), str(folder), *places, gpu], check=True)
    return Grant(setting, folder, limit, context, mounted)


def environment(grant: Grant) -> dict[str, str]:
    """That of the grant, unless the suite was asked to leave the library out, so that it must fail (running.py)."""
    env = grant.environment()
    if grant.setting.broken == "no-library":
        env.pop("LD_PRELOAD", None)
    return env


def whole_mib(size: int) -> int:
    """As requests are rounded."""
    return size // MIB * MIB


def run(command: Sequence[str], env: dict[str, str], seconds: float = 60) -> subprocess.CompletedProcess[str]:
    """A program to its end. One that takes too long counts as one that failed, with what it had said."""
    try:
        return subprocess.run(
            command,
            env=env,
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired as late:
        said = [(text or b"").decode(errors="replace") for text in (late.stdout, late.stderr)]
        return subprocess.CompletedProcess(
            command, -9, said[0], f"{said[1]}\nit was ended after {seconds:.0f} s"
        )
