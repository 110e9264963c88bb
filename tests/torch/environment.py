"""A virtual environment with PyTorch in it, and the stand-in where NVIDIA's runtime was.

NVIDIA's runtime asks the driver to prove that it is NVIDIA's, and refuses a simulated one. Only this environment's copy
is replaced; nothing here is installed or shipped.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.native import nvidia_driver
from tests.support import cudart, native

REQUIREMENTS: Final = Path(__file__).with_name("requirements.txt")
ROOM: Final = 7 * 10**9
"""Bytes that the downloads and what is in them take, together."""


def prepared(folder: Path) -> Path:
    """The Python of the environment in `folder`, made where it is not there or not of these requirements."""
    python = folder / "bin" / "python"
    complete = folder / "complete"
    if not complete.exists() or complete.read_text() != REQUIREMENTS.read_text():
        _install(folder, python)
        complete.write_text(REQUIREMENTS.read_text())
    _stand_in(folder)
    return python


def _install(folder: Path, python: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < ROOM:
        raise SystemExit(
            f"torch-check needs {ROOM // 10**9} GB in {folder}; {free / 10**9:.1f} GB are free there."
        )
    print(f"Installing PyTorch in {folder}: a download of 2.2 GB.", flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--no-cache-dir", "--no-deps", "--requirement", str(REQUIREMENTS)], check=True)


def _stand_in(folder: Path) -> None:
    (replaced,) = folder.glob("lib/python*/site-packages/nvidia/cu13/lib/libcudart.so.13")
    library = cudart.stand_in(nvidia_driver.cudart(13), native.build_folder() / "cudart-13")
    # A new file: one that a process has mapped must not be written to.
    fresh = replaced.with_name("libcudart.new")
    shutil.copy(library, fresh)
    fresh.replace(replaced)
