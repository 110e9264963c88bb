"""What is read of GPUs again and again, and how much of NVML that takes: a real NVML client on simulated GPUs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.support.session import CudaSession

from gpuportion import simgpu
from gpuportion.simgpu import sickness

CLIENT = str(Path(__file__).parents[1] / "support" / "cuda_session.py")
READER = """
import dataclasses, json, sys
import pynvml
from gpuportion.allocator.inventory import Nvml
from gpuportion.allocator.nvml import process_lists
process_lists.ROOM = 1  # a second process has to find room
asked = []
pointer = pynvml._nvmlGetFunctionPointer
pynvml._nvmlGetFunctionPointer = lambda name: asked.append(name) or pointer(name)

def told(sample):
    readings = [dataclasses.asdict(one) for one in sample.readings]
    for one in readings:
        if one["mig"]:
            del one["mig"]["at"], one["mig"]["profiles"]
    return {"readings": readings, "moved": sample.moved, "trouble": sample.trouble}

kept = Nvml()
for line in sys.stdin:
    before = len(asked)
    again = told(kept.sample())
    calls = asked[before:]
    print(json.dumps({"again": again, "fresh": told(Nvml().sample()), "calls": calls}), flush=True)
"""


class Reader:
    """Samples by one who has read before, and by one who has not."""

    def __init__(self, sim: simgpu.Sim) -> None:
        driver = {"GPUPORTION_NVML": f"{sim.lib}/libnvidia-ml.so.1", "GPUPORTION_SIM_STATE": sim.state}
        self.env = {**os.environ, **driver, "LD_LIBRARY_PATH": sim.lib}
        self.sim = sim
        self.process = subprocess.Popen(
            [sys.executable, "-c", READER],
            env=self.env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self) -> dict[str, Any]:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        assert isinstance(answer, dict)
        return answer

    def agrees(self) -> dict[str, Any]:
        """A sample, which must be what a whole reading tells."""
        said = self()
        assert said["again"]["readings"] == said["fresh"]["readings"]
        return said


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    sim = simgpu.start("a100-80gb,h100-80gb", str(tmp_path / "sim"), cdi_dir=None)
    made = Reader(sim)
    yield made
    made.process.communicate()


@contextmanager
def client(reader: Reader) -> Iterator[CudaSession]:
    pytest.importorskip("cuda.bindings", reason="needs the extra `clients`: cuda-bindings")
    with CudaSession([sys.executable, CLIENT], env=reader.env) as session:
        yield session


def test_where_nothing_changes_two_calls_a_gpu_are_made(reader: Reader) -> None:
    """Its memory and its compute processes; the rest would show there, or can wait some seconds."""
    reader.agrees()
    for _ in range(3):
        said = reader.agrees()
        assert not said["again"]["moved"]
        assert sorted(name for name in said["calls"] if "Device" in name) == [
            "nvmlDeviceGetComputeRunningProcesses_v3",
            "nvmlDeviceGetComputeRunningProcesses_v3",
            "nvmlDeviceGetCount_v2",
            "nvmlDeviceGetMemoryInfo_v2",
            "nvmlDeviceGetMemoryInfo_v2",
        ]


@pytest.mark.clients
def test_what_a_process_takes_and_gives_back_is_seen_at_once(reader: Reader) -> None:
    """However it is read, and that something has moved."""
    reader.agrees()
    with client(reader) as one, client(reader) as two:
        for each in (one, two, one):
            assert each.alloc(10**9) == "CUDA_SUCCESS"
            said = reader.agrees()["again"]
            assert said["moved"] and set(said["readings"][0]["processes"]) == {str(one.pid), str(two.pid)}
            assert not reader.agrees()["again"]["moved"]
        two.end()
        said = reader.agrees()["again"]
        assert said["moved"] and set(said["readings"][0]["processes"]) == {str(one.pid)}
    assert reader.agrees()["again"]["readings"][0]["processes"] == {}


def test_a_gpu_that_fails_and_recovers_is_read_anew(reader: Reader) -> None:
    """What was known of it before is not what it is read by."""
    reader.agrees()
    sickness.error(reader.sim.state, 1, sickness.LOST)
    said = reader()["again"]
    assert said["moved"] and [one["answers"] for one in said["readings"]] == [True, False]
    assert [one["answers"] for one in reader()["again"]["readings"]] == [True, False]
    sickness.recover(reader.sim.state, 1)
    reader()
    assert not reader.agrees()["again"]["moved"]
