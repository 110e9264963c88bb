"""What NVML says of sensors and connections, and the tools that people read it by."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec

import pytest

from gpuportion.errors import GpuportionError
from gpuportion.simgpu import Behaviour, Sim
from gpuportion.simgpu.costs import DEFAULTS
from tests.simgpu.conftest import Start
from tests.simgpu.driver import MIB, driver
from tests.simgpu.test_devices import ask_nvml

CONTEXT = DEFAULTS["context"]


@pytest.mark.parametrize(
    ("load", "expected"),
    [
        (0, [0, 50000, 400000, 34, 210, 1410, 1593, 0]),
        (50, [50, 225000, 400000, 54, 1410, 1410, 1593, 500000]),
    ],
)
def test_sensors_follow_the_load(start: Start, load: int, expected: list[int]) -> None:
    """Utilisation, power, temperature, clocks and PCIe, by the board's own figures."""
    sim = start("a100-80gb", behaviour=Behaviour(load=load))
    assert expected == ask_nvml(
        sim,
        "[n.nvmlDeviceGetUtilizationRates(d).gpu, n.nvmlDeviceGetPowerUsage(d), n.nvmlDeviceGetEnforcedPowerLimit(d),"
        " n.nvmlDeviceGetTemperature(d, 0), n.nvmlDeviceGetClockInfo(d, 1), n.nvmlDeviceGetMaxClockInfo(d, 1),"
        " n.nvmlDeviceGetClockInfo(d, 2), n.nvmlDeviceGetPcieThroughput(d, 0)]",
    )


def test_a_load_is_a_percentage(start: Start) -> None:
    """Anything else is refused before anything is made."""
    with pytest.raises(GpuportionError, match="101"):
        start(behaviour=Behaviour(load=101))


def test_boards_differ_in_fans_and_links(start: Start) -> None:
    """A desktop's board has fans and no NVLink; a T4 has neither, and an older PCIe."""
    script = (
        "[[n.nvmlDeviceGetNumFans(d), n.nvmlDeviceGetMaxPcieLinkGeneration(d), n.nvmlDeviceGetEccMode(d)[0]]"
        " for d in (n.nvmlDeviceGetHandleByIndex(i) for i in range(2))]"
    )
    sim = start("rtx4090-24gb,t4-16gb")
    assert ask_nvml(sim, script) == [[2, 4, 0], [0, 3, 1]]
    raised = "n.nvmlDeviceGetNvLinkState(d, 0)"
    with pytest.raises(AssertionError, match="NVMLError_NotSupported"):
        ask_nvml(sim, raised)


def test_links_lead_to_the_other_boards_by_turns(start: Start) -> None:
    """Each to a board that has NVLink itself; alone, they are down."""
    remote = "[n.nvmlDeviceGetNvLinkRemotePciInfo(d, link).bus for link in range(4)]"
    assert ask_nvml(start("a100-80gb:3,t4-16gb"), remote) == [2, 3, 2, 3]
    assert ask_nvml(start("a100-80gb,t4-16gb"), "n.nvmlDeviceGetNvLinkState(d, 0)") == 0


def test_devices_have_a_topology(start: Start) -> None:
    """Two share a switch, four a host bridge, eight a socket."""
    sim = start("t4-16gb:9")
    levels = (
        "[n.nvmlDeviceGetTopologyCommonAncestor(d, n.nvmlDeviceGetHandleByIndex(i)) for i in (0, 1, 3, 7, 8)]"
    )
    assert ask_nvml(sim, levels) == [0, 10, 30, 40, 50]
    near = "[n.nvmlDeviceGetIndex(x) for x in n.nvmlDeviceGetTopologyNearestGpus(d, 30)]"
    assert ask_nvml(sim, near) == [1, 2, 3]


def test_waiting_for_events_times_out(sim: Sim) -> None:
    """A set can be made, registered with and waited for; nothing happens."""
    text = (
        "import pynvml as n\nn.nvmlInit()\nd, s = n.nvmlDeviceGetHandleByIndex(0), n.nvmlEventSetCreate()\n"
        "n.nvmlDeviceRegisterEvents(d, n.nvmlDeviceGetSupportedEventTypes(d), s)\n"
        "try:\n    n.nvmlEventSetWait_v2(s, 10)\nexcept n.NVMLError_Timeout:\n    print('none')\n"
        "n.nvmlEventSetFree(s)"
    )
    assert run(sim, "-c", text) == "none\n"


def run(sim: Sim, *arguments: str) -> str:
    """What the interpreter prints; a warning is an error."""
    done = subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        env={**os.environ, **sim.env(), "TERM": "xterm", "COLUMNS": "100", "LC_ALL": "C.UTF-8"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def needs(package: str) -> None:
    if find_spec(package) is None:
        pytest.skip(f"needs {package}, of the dependency group 'clients'")


@pytest.mark.clients
def test_nvitop_runs(start: Start) -> None:
    """Once, unmodified: boards, load, memory, and the process that holds it."""
    needs("nvitop")
    sim = start("a100-80gb:2", behaviour=Behaviour(load=40))
    with driver(sim) as cuda:
        cuda.open().alloc(1024 * MIB)
        text = run(sim, "-m", "nvitop", "--once", "--no-unicode")
        assert text.count("A100-SXM4-80GB") == 2
        assert "/ 80.00GiB" in text and " 40% " in text and "/ 400W" in text
        (line,) = (line for line in text.splitlines() if f" {cuda.process.pid} " in line)
        assert f" {(1024 * MIB + CONTEXT) // MIB}MiB " in line


@pytest.mark.clients
def test_gpustat_runs(start: Start) -> None:
    """Once, unmodified: the same numbers in its JSON, and its table."""
    needs("gpustat")
    sim = start("t4-16gb", behaviour=Behaviour(load=40))
    with driver(sim) as cuda:
        cuda.open().alloc(1024 * MIB)
        assert "Tesla T4" in run(sim, "-m", "gpustat", "--no-color")
        (gpu,) = json.loads(run(sim, "-m", "gpustat", "--json"))["gpus"]
        assert (gpu["utilization.gpu"], gpu["enforced.power.limit"]) == (40, 70)
        (process,) = gpu["processes"]
        used = (1024 * MIB + CONTEXT) // MIB
        assert (process["pid"], process["gpu_memory_usage"]) == (cuda.process.pid, used)
