"""NVIDIA's user-space driver and runtime, fetched at test time: they load and answer on a machine without a GPU.

Knows nothing of what is tested with them. They are NVIDIA's: kept in the test cache, never committed or shipped. Those
of USUAL are fetched by any run, the others with GPUPORTION_TEST_LONG=1 (and used where they are there already).
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.native import debian, ubuntu
from tests.native.debian import UnavailableError, cache_folder, one


@dataclass(frozen=True)
class Source:
    """The packages that a driver is in."""

    fetch: Callable[..., Path]
    suite: str
    component: str
    packages: tuple[str, ...]


PACKAGES = ("libcuda1", "libnvidia-ml1", "nvidia-smi", "libnvidia-ptxjitcompiler1")
# With nvidia-smi.
WHOLE = {
    535: Source(debian.unpacked, "bookworm", "non-free", PACKAGES),
    550: Source(debian.unpacked, "trixie", "non-free", PACKAGES),
    595: Source(ubuntu.unpacked, "resolute", "restricted", ("libnvidia-compute-595", "nvidia-utils-595")),
}
# Of these the libraries alone are of interest; Debian's have no NVML with them.
FURTHER = {
    470: Source(debian.unpacked, "bookworm", "non-free", ("libnvidia-tesla-470-cuda1",)),
    525: Source(ubuntu.unpacked, "bionic-updates", "restricted", ("libnvidia-compute-525",)),
    555: Source(debian.unpacked, "experimental", "non-free", ("libcuda1",)),
    570: Source(ubuntu.unpacked, "focal-updates", "restricted", ("libnvidia-compute-570",)),
    580: Source(ubuntu.unpacked, "resolute", "restricted", ("libnvidia-compute-580",)),
}
# Held against the table of symbols in any run; the least that it is held to.
USUAL = (470, 535, 550, 555)
LONG = os.environ.get("GPUPORTION_TEST_LONG") == "1"
RUNTIMES = {
    11: "nvidia-cuda-runtime-cu11==11.8.89",
    12: "nvidia-cuda-runtime-cu12==12.4.127",
    13: "nvidia-cuda-runtime==13.0.96",
}


@dataclass(frozen=True)
class Driver:
    """An unpacked user-space driver."""

    branch: int
    libcuda: Path
    libnvml: Path
    smi: Path


def driver(branch: int) -> Driver:
    """The driver of a branch."""
    root = _unpacked(branch)
    return Driver(
        branch,
        one(root, f"usr/lib/*/**/libcuda.so.{branch}.*"),
        one(root, f"usr/lib/*/**/libnvidia-ml.so.{branch}.*"),
        one(root, "usr/[bl]i[nb]/**/nvidia-smi"),
    )


def libraries(branch: int) -> list[Path]:
    """The CUDA library of a branch, and NVML where the packages have it."""
    root = _unpacked(branch)
    nvml = [path for path in root.glob(f"usr/lib/*/**/libnvidia-ml.so.{branch}.*") if not path.is_symlink()]
    return [one(root, f"usr/lib/*/**/libcuda.so.{branch}.*"), *nvml]


def _unpacked(branch: int) -> Path:
    source = WHOLE.get(branch) or FURTHER[branch]
    name = f"driver-{branch}" if branch in WHOLE else f"libcuda-{branch}"
    if branch not in USUAL and not LONG and not debian.is_unpacked(name):
        raise UnavailableError(
            f"the driver {branch} is not in {cache_folder()}, and GPUPORTION_TEST_LONG=1 fetches it"
        )
    return source.fetch(name, source.suite, source.component, *source.packages)


def cudart(major: int) -> Path:
    """NVIDIA's libcudart of a CUDA major version."""
    folder = cache_folder() / f"cudart-{major}"
    if not (folder / "complete").exists():
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder)]
        done = subprocess.run([*install, RUNTIMES[major]], capture_output=True, text=True, check=False)
        if done.returncode:
            raise UnavailableError(f"pip could not fetch {RUNTIMES[major]}: {done.stderr.strip()[-300:]}")
        (folder / "complete").touch()
    return one(folder, "nvidia/**/libcudart.so.*")
