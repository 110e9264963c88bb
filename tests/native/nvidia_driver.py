"""NVIDIA's user-space driver and runtime, fetched at test time: they load and answer on a machine without a GPU.

Knows nothing of what is tested with them. They are NVIDIA's: kept in the test cache, never committed or shipped.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.native.debian import UnavailableError, cache_folder, one, unpacked

PACKAGES = ("libcuda1", "libnvidia-ml1", "nvidia-smi", "libnvidia-ptxjitcompiler1")
SUITES = {535: "bookworm", 550: "trixie"}
# Of these the CUDA library alone is of interest.
FURTHER = {470: ("bookworm", "libnvidia-tesla-470-cuda1"), 555: ("experimental", "libcuda1")}
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
    root = unpacked(f"driver-{branch}", SUITES[branch], "non-free", *PACKAGES)
    return Driver(
        branch,
        one(root, f"usr/lib/*/**/libcuda.so.{branch}.*"),
        one(root, f"usr/lib/*/**/libnvidia-ml.so.{branch}.*"),
        one(root, "usr/lib/**/nvidia-smi"),
    )


def libcuda(branch: int) -> Path:
    """The CUDA library of a branch, of which there may be nothing else."""
    if branch in SUITES:
        return driver(branch).libcuda
    suite, package = FURTHER[branch]
    return one(
        unpacked(f"libcuda-{branch}", suite, "non-free", package), f"usr/lib/*/**/libcuda.so.{branch}.*"
    )


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
