"""Programs of the CUDA runtime under a grant, on a stand-in with the ABI of 12 and of 13."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.native import nvidia_driver
from tests.native.capped import Grant
from tests.native.debian import UnavailableError
from tests.native.usual_grant import CONTEXT, LIMIT
from tests.support import cudart, native

OK = "cudaSuccess"
OUT_OF_MEMORY = "cudaErrorMemoryAllocation"
KERNEL = """
#include <cstdio>
__device__ int variable;
__global__ void kernel(int *p) { p[0] = 1; }
int main() {
    int *p, x = 3;
    if (cudaMalloc(&p, 1 << 20)) return 1;
    kernel<<<1, 32>>>(p);
    if (cudaGetLastError() || cudaMemcpyToSymbol(variable, &x, sizeof x) || cudaDeviceSynchronize()) return 2;
    return cudaMalloc(&p, 2000000000) == cudaErrorMemoryAllocation ? 0 : 3;
}
"""


@pytest.fixture(scope="module", params=[12, 13])
def runtime(request: pytest.FixtureRequest) -> Path:
    """The folder of the stand-in for this major version."""
    try:
        library = nvidia_driver.cudart(request.param)
    except UnavailableError as why:
        pytest.skip(f"needs the headers of CUDA {request.param}: {why}")
    return cudart.stand_in(library, native.build_folder() / f"cudart-{request.param}").parent


class Program:
    """Runs the client in a grant."""

    def __init__(self, grant: Grant, runtime: Path) -> None:
        path = f"{runtime}:{os.environ.get('LD_LIBRARY_PATH', '')}"
        self.command = str(runtime / cudart.CLIENT)
        self.env = {**grant.preload(), "LD_LIBRARY_PATH": path}

    def __call__(self, *words: str) -> list[str]:
        """What the client says of each of `words`."""
        done = subprocess.run(
            [self.command, *words], env=self.env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()


@pytest.fixture
def program(grant: Grant, runtime: Path) -> Program:
    return Program(grant, runtime)


@pytest.mark.parametrize("verb", ["malloc", "managed", "async", "pool"])
def test_the_cap_holds_for_the_runtimes_allocations(program: Program, verb: str) -> None:
    """Beyond the grant: cudaErrorMemoryAllocation; what was there stays, what is freed can be taken again."""
    end = "free-async" if verb in ("async", "pool") else "free"
    asked = [f"{verb}=500000000", f"{verb}=500000000", "last", f"{verb}=100000000", end, end]
    said = program(*asked, f"{verb}=600000000")
    assert said == [OK, OUT_OF_MEMORY, f'"out of memory" {OUT_OF_MEMORY}', OK, OK, OK, OK]


def test_rows_are_counted_by_their_pitch(program: Program) -> None:
    """1000 bytes a row take 1024: 760 000 rows would fit by their width alone."""
    assert program("pitched=760000", "pitched=740000") == [OUT_OF_MEMORY, OK]


def test_the_grant_is_the_device(program: Program) -> None:
    """cudaMemGetInfo and cudaDeviceProp, whose layout differs between 12 and 13, tell the same total."""
    info, properties, second = program("info", "properties=0", "properties=1")
    assert info == f"{LIMIT - CONTEXT} {LIMIT} {OK}"
    assert properties == f"{LIMIT} 8.0 1 {OK}"
    assert second == f"{LIMIT // 2} 8.0 1 {OK}"


def test_each_device_has_its_own_grant(program: Program) -> None:
    """The second device's is half as large, and has a context of its own."""
    said = program("devices", "choose=1", "malloc=400000000", "choose=0", "malloc=400000000", "choose=2")
    assert said == [f"2 {OK}", OK, OUT_OF_MEMORY, OK, OK, "cudaErrorInvalidDevice"]


def test_a_reset_gives_everything_back(program: Program) -> None:
    """What the process had on the device goes with its primary context."""
    said = program("malloc=700000000", "malloc=700000000", "reset", "malloc=700000000")
    assert said == [OK, OUT_OF_MEMORY, OK, OK]


def test_host_memory_costs_the_grant_nothing(program: Program) -> None:
    """Pinned memory is the host's."""
    assert program("malloc=700000000", "host=700000000") == [OK, OK]


def test_copies_streams_and_launches_do_what_they_do(program: Program) -> None:
    """Bytes come back as they went; events are timed; kernels are taken and do nothing."""
    said = program("streams", "copy=100000", "launch=32", "unknown-kernel", "last", "unsupported")
    assert said[:3] == [f"1 {OK}", f"0 1 {OK}", OK]
    assert said[3] == "cudaErrorInvalidDeviceFunction"
    assert said[4].endswith(said[3])
    assert said[5] == "cudaErrorNotSupported"


def test_a_captured_allocation_is_counted_when_it_runs(program: Program) -> None:
    """A graph that holds more than the grant is refused; one that fits runs, and so does what comes after."""
    assert program("streams", "graph=600000000")[1] == OK
    assert program("streams", "malloc=500000000", "graph=600000000", "malloc=100000000")[1:] == [
        OK,
        OUT_OF_MEMORY,
        OK,
    ]


def test_a_program_of_nvcc_runs(grant: Grant, runtime: Path, tmp_path: Path) -> None:
    """nvcc -cudart shared: its own start-up code registers kernels and variables with the stand-in."""
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("needs nvcc")
    major = re.search(r"release (\d+)", subprocess.check_output([nvcc, "--version"], text=True))
    if major is None or not (runtime / f"libcudart.so.{major[1]}").exists():
        pytest.skip(f"nvcc is not of {runtime.name}")
    (tmp_path / "program.cu").write_text(KERNEL)
    flags = ["-cudart", "shared", "-o", str(tmp_path / "program")]
    subprocess.run([nvcc, *flags, str(tmp_path / "program.cu")], check=True, capture_output=True)
    program = Program(grant, runtime)
    assert subprocess.run([str(tmp_path / "program")], env=program.env, check=False).returncode == 0
