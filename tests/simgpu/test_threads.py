"""The driver under sanitizers, used by several threads at once."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from gpuportion.simgpu import Sim
from gpuportion.simgpu.costs import DEFAULTS
from tests.support.native import ROOT

PROGRAM = Path(__file__).with_name("threads.c")


def compiled(sources: list[Path], program: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command: list[str | Path] = [
        "gcc",
        "-std=gnu11",
        "-g",
        "-O1",
        "-D_GNU_SOURCE",
        *options,
        "-o",
        program,
        *sources,
        "-lpthread",
    ]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def works(sanitizer: str, folder: Path) -> bool:
    """Whether this machine has the sanitizer's library and lets it run."""
    source, program = folder / "empty.c", folder / "empty"
    source.write_text("int main(void) { return 0; }\n")
    built = compiled([source], program, f"-fsanitize={sanitizer}").returncode == 0
    return built and subprocess.run([program], capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("sanitizer", ["thread", "address,undefined"])
def test_threads_share_a_driver_cleanly(sim: Sim, libraries: Path, tmp_path: Path, sanitizer: str) -> None:
    """No race, no bad access, nothing undefined; and at the end only the context is in use."""
    if not works(sanitizer, tmp_path):
        pytest.skip(f"gcc's -fsanitize={sanitizer} does not work here")
    generated = libraries.parent / "simcuda_exports.c"
    sources = [PROGRAM, generated, *(ROOT / "simgpu").glob("cuda/*.c"), *(ROOT / "simgpu").glob("state/*.c")]
    program = tmp_path / "threads"
    done = compiled(sources, program, f"-fsanitize={sanitizer}", f"-I{ROOT}/simgpu/cuda")
    assert done.returncode == 0, done.stderr
    env = {**os.environ, **sim.env(), "ASAN_OPTIONS": "detect_leaks=0", "UBSAN_OPTIONS": "halt_on_error=1"}
    ran = subprocess.run([program], env=env, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (0, f"{DEFAULTS['context'] >> 20}\n"), ran.stderr
