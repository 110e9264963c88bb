"""Mounts the library over the driver's files in a private mount namespace, and becomes a command.

mounted.py GRANT LIBCUDA LIBNVML COMMAND...     GRANT: grants.py's folder; the others: the driver's real files
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[3]))

from gpuportion.allocator.host_portion import SELF
from gpuportion.cli import private_mounts


def same_library(path: str, stem: str) -> list[str]:
    """Every file beside `path` that is this library by some name, links followed."""
    folder = os.path.dirname(path)
    names = [name for name in os.listdir(folder) if name.split(".so")[0] == stem]
    return sorted({os.path.realpath(f"{folder}/{name}") for name in names} | {path})


def main(grant: str, libcuda: str, libnvml: str, *command: str) -> None:
    os.makedirs(SELF, mode=0o755, exist_ok=True)
    private_mounts.enter()
    for real, name, stem in (
        (libcuda, "libcuda.so.1", "libcuda"),
        (libnvml, "libnvidia-ml.so.1", "libnvidia-ml"),
    ):
        over = [(f"{grant}/{name}", path) for path in same_library(real, stem)]
        private_mounts.bind([(real, f"{grant}/driver/{name}"), *over])
    private_mounts.bind([(grant, SELF)])
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(*sys.argv[1:])
