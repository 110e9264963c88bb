"""Which devices a process sees, and that CUDA and NVML tell the same story of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent, indent
from typing import Any

import pytest

from gpuportion.simgpu import Sim, state
from gpuportion.simgpu.boards import BOARDS
from tests.simgpu.conftest import Start
from tests.simgpu.driver import MIB, NO_DEVICE, OUT, SUCCESS, driver


def ask_nvml(
    sim: Sim, expression: str, *, wrap: tuple[str, ...] = (), env: dict[str, str] | None = None
) -> Any:
    """The value of an expression over the unmodified pynvml as `n`, in a process of its own."""
    first = "import json, pynvml as n\nn.nvmlInit()\nd = n.nvmlDeviceGetHandleByIndex(0)"
    text = f"{first}\nprint(json.dumps({expression}))"
    done = subprocess.run(
        [*wrap, sys.executable, "-c", text],
        env=env or {**os.environ, **sim.env()},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", list(BOARDS))
def test_a_board_is_what_its_table_says(start: Start, name: str) -> None:
    """Name, UUID, totals, capability by both libraries; CUDA's total is NVML's less the reserved."""
    sim, board = start(name), BOARDS[name]
    nvml = ask_nvml(
        sim,
        "[n.nvmlDeviceGetName(d), n.nvmlDeviceGetUUID(d), n.nvmlDeviceGetMemoryInfo(d).total, "
        "n.nvmlDeviceGetMemoryInfo(d, version=n.nvmlMemory_v2).reserved, n.nvmlDeviceGetMinorNumber(d), "
        "n.nvmlDeviceGetCudaComputeCapability(d), n.nvmlDeviceGetPciInfo(d).busId]",
    )
    uuid = sim.devices[0].uuid
    expected = [board.name, uuid, board.total, board.reserved, 0, list(board.capability), "00000000:01:00.0"]
    assert nvml == expected
    with driver(sim) as cuda:
        cuda.do("cuInit", 0)
        assert cuda.do("cuDeviceTotalMem_v2", OUT, 0) == board.total - board.reserved
        attributes = [cuda.do("cuDeviceGetAttribute", OUT, which, 0) for which in (75, 76, 16)]
        assert attributes == [*board.capability, board.sms]


def test_cuda_and_nvml_agree_on_what_is_used(start: Start) -> None:
    """Used, free and the bytes of each process: by cuMemGetInfo, NVML and the state's own reader."""
    sim = start("a100-80gb:2")
    with driver(sim) as one, driver(sim) as two:
        one.open().alloc(300 * MIB)
        two.open(1).alloc(5000)
        two.open(0).do("cuMemAllocAsync", OUT, 100 * MIB, 0)
        for index, client in ((0, one), (1, two)):
            client.open(index)
            device = f"n.nvmlDeviceGetHandleByIndex({index})"
            used, free, reserved, processes = ask_nvml(
                sim,
                "(lambda d, m: [m.used, m.free, m.reserved, {p.pid: p.usedGpuMemory for p in "
                "n.nvmlDeviceGetComputeRunningProcesses(d)}])"
                f"({device}, n.nvmlDeviceGetMemoryInfo({device}, version=n.nvmlMemory_v2))",
            )
            truth = state.read(sim.state)[index]
            assert {int(pid): size for pid, size in processes.items()} == truth
            assert used == sum(truth.values())
            assert free == client.info()[0]
            assert used + free + reserved == sim.devices[index].total
        assert set(state.read(sim.state)[0]) == {one.process.pid, two.process.pid}
        assert set(state.read(sim.state)[1]) == {two.process.pid}


def test_before_driver_510s_structure_the_reserved_counts_as_used(sim: Sim) -> None:
    """The first version of NVML's memory info has no field for it."""
    used, free, total = ask_nvml(sim, "(lambda m: [m.used, m.free, m.total])(n.nvmlDeviceGetMemoryInfo(d))")
    assert (used, total) == (sim.devices[0].reserved, sim.devices[0].total)
    assert used + free == total


@pytest.mark.parametrize(
    ("wanted", "indices"),
    [
        ("0,1,2", [0, 1, 2]),
        ("2,0", [2, 0]),
        ("", []),
        ("1,9,0", [1]),
        ("-1", []),
        ("no", []),
        ("1,1", [1]),
        ("GPU-{1}", [1]),
        ("GPU-{2:.13},0", [2, 0]),
        ("GPU-", []),
    ],
)
def test_cuda_visible_devices_is_honoured(start: Start, wanted: str, indices: list[int]) -> None:
    """Indices and UUIDs or their beginnings, in the given order, up to the first that is wrong."""
    sim = start("t4-16gb:3", seed=7)
    uuids = [device.uuid.removeprefix("GPU-") for device in sim.devices]
    with driver(sim, CUDA_VISIBLE_DEVICES=wanted.format(*uuids)) as cuda:
        assert cuda.call("cuInit", 0)[0] == (SUCCESS if indices else NO_DEVICE)
        if indices:
            assert cuda.do("cuDeviceGetCount", OUT) == len(indices)
            buses = [cuda.do("cuDeviceGetAttribute", OUT, 33, i) for i in range(len(indices))]
            assert buses == [index + 1 for index in indices]


def test_nvml_finds_a_device_by_any_name(start: Start) -> None:
    """Index, UUID, PCI id with either width of domain; unknown ones are not found."""
    sim = start("a100-80gb:2")
    for by in (
        f"n.nvmlDeviceGetHandleByUUID('{sim.devices[1].uuid}')",
        "n.nvmlDeviceGetHandleByPciBusId('00000000:02:00.0')",
        "n.nvmlDeviceGetHandleByPciBusId('0000:02:00.0')",
        "n.nvmlDeviceGetHandleByIndex(1)",
    ):
        assert ask_nvml(sim, f"n.nvmlDeviceGetIndex({by})") == 1
    for wrong, error in (("ByUUID('GPU-0')", "NotFound"), ("ByIndex(2)", "InvalidArgument")):
        text = f"""
            import pynvml as n
            n.nvmlInit()
            try:
                n.nvmlDeviceGetHandle{wrong}
            except n.NVMLError_{error}:
                print("right")
        """
        done = subprocess.run(
            [sys.executable, "-c", dedent(text)],
            env={**os.environ, **sim.env()},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout == "right\n"


@pytest.mark.parametrize(
    ("board", "answer"), [("a100-80gb", "[0, 0]"), ("t4-16gb", "NVMLError_NotSupported")]
)
def test_mig_mode_is_off_where_the_board_has_it(start: Start, board: str, answer: str) -> None:
    """And not supported where it has not."""
    text = """
        import pynvml as n
        n.nvmlInit()
        try:
            print(list(n.nvmlDeviceGetMigMode(n.nvmlDeviceGetHandleByIndex(0))))
        except n.NVMLError as error:
            print(type(error).__name__)
    """
    sim = start(board)
    done = subprocess.run(
        [sys.executable, "-c", dedent(text)],
        env={**os.environ, **sim.env()},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == answer


def test_nvml_without_a_simulation_has_no_driver(sim: Sim, tmp_path: Path) -> None:
    """NVML_ERROR_DRIVER_NOT_LOADED, and uninitialised before nvmlInit."""
    text = """
        import pynvml as n
        try:
            n.nvmlInit()
        except n.NVMLError_DriverNotLoaded as error:
            print(error)
    """
    env = {**os.environ, **sim.env(), "GPUPORTION_SIM_STATE": str(tmp_path / "nothing")}
    done = subprocess.run(
        [sys.executable, "-c", dedent(text)], env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout == "Driver Not Loaded\n"


def can_unshare() -> bool:
    command = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "true"]
    return os.geteuid() == 0 and subprocess.run(command, capture_output=True, check=False).returncode == 0


needs_namespaces = pytest.mark.skipif(
    not can_unshare(), reason="needs root and namespaces: unshare is refused"
)


@needs_namespaces
def test_the_host_sees_the_host_pids_of_processes_in_containers(sim: Sim) -> None:
    """A process in a pid namespace of its own is listed under the pid by which the reader knows it."""
    from tests.simgpu.driver import Driver

    wrap = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    listed = "[p.pid for p in n.nvmlDeviceGetComputeRunningProcesses(d)]"
    with Driver(sim.env(), command=wrap) as inside:
        inside.open()
        assert list(state.read(sim.state)[0]) == [1]
        (pid,) = ask_nvml(sim, listed)
        assert b"client.py" in Path(f"/proc/{pid}/cmdline").read_bytes()
        assert b"unshare" not in Path(f"/proc/{pid}/cmdline").read_bytes()
        assert ask_nvml(sim, listed, wrap=("unshare", "--pid", "--fork", "--mount-proc")) == []


@needs_namespaces
def test_in_a_container_only_devices_with_a_node_are_there(start: Start, libraries: Path) -> None:
    """The state lies at /dev/gpuportion-sim, and /dev/nvidia<minor> says what was handed over."""
    sim = start("t4-16gb:3")
    script = f"""
        mount -t tmpfs none /dev
        touch /dev/gpuportion-sim
        mount --bind {sim.state} /dev/gpuportion-sim
        touch /dev/nvidia0 /dev/nvidia2
        exec "$@"
    """
    wrap = ("unshare", "--mount", "sh", "-ec", indent(dedent(script), ""), "sh")
    env = {k: v for k, v in os.environ.items() if k != "GPUPORTION_SIM_STATE"} | {"LD_LIBRARY_PATH": sim.lib}
    minors = (
        "[n.nvmlDeviceGetMinorNumber(n.nvmlDeviceGetHandleByIndex(i)) for i in range(n.nvmlDeviceGetCount())]"
    )
    assert ask_nvml(sim, minors, wrap=wrap, env=env) == [0, 2]
