"""Unmodified clients on the bare simulated driver."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from gpuportion.simgpu import Sim, state
from tests.simgpu.driver import driver

SOURCE = Path(__file__).with_name("client.c")


@pytest.mark.parametrize("way", ["direct", "dlsym", "cuGetProcAddress"])
def test_c_programs_reach_the_driver(sim: Sim, libraries: Path, tmp_path: Path, way: str) -> None:
    """Linked to it, by dlopen and dlsym, and by cuGetProcAddress: the same driver answers."""
    program = tmp_path / "client"
    link = ["-DDIRECT", f"-L{libraries}", "-l:libcuda.so.1"] if way == "direct" else []
    subprocess.run(["gcc", "-Wall", "-Werror", "-o", program, SOURCE, *link, "-ldl"], check=True)
    done = subprocess.run(
        [program, way], env={**os.environ, **sim.env()}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "there and back, 1073741824 bytes\n"), done.stderr


def run_python(sim: Sim, text: str, needs: str) -> str:
    """What a Python client prints. Skips where its package is not installed."""
    if importlib.util.find_spec(needs.partition(".")[0]) is None or importlib.util.find_spec(needs) is None:
        pytest.skip(f"needs {needs}, of the dependency group 'clients'")
    done = subprocess.run(
        [sys.executable, "-c", dedent(text)],
        env={**os.environ, **sim.env()},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.clients
def test_cuda_bindings(sim: Sim) -> None:
    """NVIDIA's own bindings: memory of every kind, out of memory, streams, events, virtual memory."""
    text = """
        from cuda.bindings import driver as cu

        def need(answer):
            assert answer[0] == cu.CUresult.CUDA_SUCCESS, answer[0]
            return answer[1] if len(answer) == 2 else answer[1:]

        need(cu.cuInit(0))
        need(cu.cuCtxSetCurrent(need(cu.cuDevicePrimaryCtxRetain(0))))
        free, total = need(cu.cuMemGetInfo())
        block = need(cu.cuMemAlloc(1 << 30))
        assert free - need(cu.cuMemGetInfo())[0] == 1 << 30
        assert cu.cuMemAlloc(total)[0] == cu.CUresult.CUDA_ERROR_OUT_OF_MEMORY
        need(cu.cuMemFree(block))
        stream = need(cu.cuStreamCreate(0))
        start, end = need(cu.cuEventCreate(0)), need(cu.cuEventCreate(0))
        need(cu.cuEventRecord(start, stream))
        need(cu.cuMemFreeAsync(need(cu.cuMemAllocAsync(1 << 20, stream)), stream))
        need(cu.cuEventRecord(end, stream))
        need(cu.cuStreamSynchronize(stream))
        assert need(cu.cuEventElapsedTime(start, end)) >= 0
        properties = cu.CUmemAllocationProp()
        properties.type = cu.CUmemAllocationType.CU_MEM_ALLOCATION_TYPE_PINNED
        properties.location.type = cu.CUmemLocationType.CU_MEM_LOCATION_TYPE_DEVICE
        handle = need(cu.cuMemCreate(2 << 20, properties, 0))
        at = need(cu.cuMemAddressReserve(2 << 20, 0, 0, 0))
        need(cu.cuMemMap(at, 2 << 20, 0, handle, 0))
        need(cu.cuMemUnmap(at, 2 << 20))
        need(cu.cuMemRelease(handle))
        assert need(cu.cuMemGetInfo())[0] == free
        print(need(cu.cuDeviceGetName(64, 0)).rstrip(b"\\0 ").decode())
    """
    assert run_python(sim, text, "cuda.bindings.driver") == "NVIDIA A100-SXM4-80GB\n"


@pytest.mark.clients
def test_cuda_core(sim: Sim) -> None:
    """NVIDIA's cuda.core: a device, a stream, a buffer of a memory resource, an event."""
    text = """
        from cuda.core import Device, DeviceMemoryResource

        device = Device(0)
        device.set_current()
        stream = device.create_stream()
        buffer = DeviceMemoryResource(device).allocate(1 << 20, stream=stream)
        assert buffer.size == 1 << 20
        stream.record().sync()
        buffer.close()
        stream.sync()
        print(device.name, device.compute_capability.major, device.uuid)
    """
    identity = sim.devices[0].uuid.removeprefix("GPU-")
    assert run_python(sim, text, "cuda.core") == f"NVIDIA A100-SXM4-80GB 8 {identity}\n"


@pytest.mark.clients
def test_numba_cuda_compiles_and_launches(sim: Sim) -> None:
    """A kernel is compiled to code, loaded and launched; it does nothing. Arrays go there and back."""
    text = """
        import numpy
        from numba import cuda
        cuda.config.CUDA_LOW_OCCUPANCY_WARNINGS = 0

        @cuda.jit
        def add_one(values):
            values[cuda.grid(1)] += 1

        values = numpy.arange(1 << 16, dtype=numpy.float32)
        there = cuda.to_device(values)
        add_one[256, 256](there)
        cuda.synchronize()
        assert (there.copy_to_host() == values).all()
        try:
            cuda.device_array(1 << 40, dtype=numpy.uint8)
        except Exception as error:
            assert "CUDA_ERROR_OUT_OF_MEMORY" in str(error)
        print("launched")
    """
    assert run_python(sim, text, "numba.cuda") == "launched\n"


def test_a_trace_names_calls_and_callers(sim: Sim, tmp_path: Path) -> None:
    """GPUPORTION_SIM_TRACE gets a line a call, of functions that are not simulated too."""
    trace = tmp_path / "trace"
    with driver(sim, GPUPORTION_SIM_TRACE=str(trace)) as cuda:
        cuda.open()
        cuda.call("cuMulticastCreate", "&", 0)
    calls = [line.split()[0] for line in trace.read_text().splitlines()]
    assert calls == ["cuInit", "cuDevicePrimaryCtxRetain", "cuCtxSetCurrent", "cuMulticastCreate"]


def test_without_a_simulation_there_is_no_device(tmp_path: Path, sim: Sim) -> None:
    """As with no driver loaded: cuInit has no device, whatever is asked later."""
    with driver(sim, GPUPORTION_SIM_STATE=str(tmp_path / "nothing")) as cuda:
        assert cuda.call("cuInit", 0)[0] == 100
        assert cuda.call("cuDeviceGetCount", "&")[0] == 3
        assert cuda.do("cuDriverGetVersion", "&") == 13050
    assert state.holders(sim.state) == []


def test_a_file_that_is_no_state_is_no_driver(tmp_path: Path, sim: Sim) -> None:
    """Too short, or of another version: refused before anything of it is used."""
    valid = Path(sim.state).read_bytes()
    other = valid.replace(state.VERSION.encode(), b"gpuportion-sim 1\n")
    assert other != valid
    for i, content in enumerate([b"", valid[:100], valid[:-1], other]):
        path = tmp_path / f"wrong{i}"
        path.write_bytes(content)
        with driver(sim, GPUPORTION_SIM_STATE=str(path)) as cuda:
            assert cuda.call("cuInit", 0)[0] == 100
