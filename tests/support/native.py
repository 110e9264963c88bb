"""Builds single CMake targets for tests: the C programs as users get them, and their sanitized twins."""

from __future__ import annotations

import fcntl
import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.support import emulation

ROOT: Final = Path(__file__).resolve().parents[2]
PATH: Final = f"{Path(sys.executable).parent}:{os.environ.get('PATH', '/usr/bin:/bin')}"
SANITIZER_ENV: Final = {
    # An exec'd or refusing process ends without freeing; that is no leak worth a failure.
    "ASAN_OPTIONS": "detect_leaks=0",
    "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
}


def build_folder() -> Path:
    """`GPUPORTION_TEST_BUILD` moves it."""
    native = Path(os.environ.get("GPUPORTION_TEST_BUILD") or ROOT / "build" / "tests")
    return native.with_name(f"{native.name}-aarch64") if emulation.wanted() else native


@functools.cache
def built(target: str, folder: str) -> str:
    """Absolute path of the program of the CMake `target` in the top-level `folder`, up to date."""
    where = build_folder()
    build(ROOT, where, target, *emulation.settings())
    return str(emulation.runnable(where / folder / target))


def build(source: Path, where: Path, target: str = "all", *settings: str) -> None:
    """Bring a target of the CMake project in `source` up to date in the folder `where`."""
    where.mkdir(parents=True, exist_ok=True)
    with open(where / ".lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (where / "CMakeCache.txt").exists():
            python = f"-DPython_EXECUTABLE={sys.executable}"
            _cmake(["-S", str(source), "-B", str(where), *_generator(), python, *settings])
        _cmake(["--build", str(where), "--target", target])


def _generator() -> list[str]:
    return ["-G", "Ninja"] if shutil.which("ninja", path=PATH) else []


def _cmake(arguments: list[str]) -> None:
    program = shutil.which("cmake", path=PATH)
    assert program, "needs cmake"
    done = subprocess.run(
        [program, *arguments], capture_output=True, check=False, text=True, env={**os.environ, "PATH": PATH}
    )
    assert done.returncode == 0, done.stdout + done.stderr
