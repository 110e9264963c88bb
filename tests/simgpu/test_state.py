"""The state file as two languages read it; and the start, use and end of a simulation."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from gpuportion import simgpu
from gpuportion.errors import GpuportionError
from gpuportion.simgpu import Behaviour, Sim, boards, cdi, costs, mig, state
from tests.simgpu.conftest import Start
from tests.simgpu.driver import driver
from tests.simgpu.nvml import Nvml

SIMGPU = Path(__file__).parents[2] / "simgpu"
LAYOUT = r"""
#include "state.h"
#include <stdio.h>
int main(void) {
    printf("%d %d %d %d %d %d %d ", SIM_TEXT, SIM_UNIT, SIM_DEVICES, SIM_SLOTS, SIM_INSTANCES, SIM_COMPUTES,
           SIM_ACCOUNTS);
    printf("%zu %zu %zu %zu ", offsetof(struct sim_shared, high), offsetof(struct sim_shared, total),
           offsetof(struct sim_shared, slot), offsetof(struct sim_shared, mig));
    printf("%zu %zu %zu ", offsetof(struct sim_shared, cell), offsetof(struct sim_shared, intent),
           sizeof(struct sim_shared));
    printf("%zu %zu %zu %zu ", sizeof(struct sim_mig), offsetof(struct sim_mig, instance),
           sizeof(struct sim_instance), sizeof(struct sim_compute));
    printf("%d %d %d\n", SIM_LIFE(0), SIM_USE(0), SIM_CHANGE);
    return sizeof(struct sim_slot) != 64 || sizeof(struct sim_total) != 64;
}
"""


def test_the_layout_is_the_same_in_c_and_python(tmp_path: Path) -> None:
    """Offsets, sizes and the version line."""
    source, program = tmp_path / "layout.c", tmp_path / "layout"
    source.write_text(LAYOUT)
    subprocess.run(["gcc", f"-I{SIMGPU}/state", "-o", program, source], check=True)
    said = subprocess.run([program], capture_output=True, text=True, check=True).stdout
    assert [int(number) for number in said.split()] == [
        state.TEXT,
        state.UNIT,
        state.DEVICES,
        state.SLOTS,
        state.INSTANCES,
        state.COMPUTES,
        state.ACCOUNTS,
        state.HIGH_AT,
        state.TOTAL_AT,
        state.SLOT_AT,
        state.MIG_AT,
        state.CELL_AT,
        state.INTENT_AT,
        state.SIZE,
        mig.DEVICE_SIZE,
        mig.HEAD_SIZE,
        mig.INSTANCE_SIZE,
        mig.COMPUTE_SIZE,
        state.LIFE_AT,
        state.USE_AT,
        state.CHANGE_AT,
    ]
    assert json.dumps(state.VERSION) in (SIMGPU / "state" / "state.h").read_text()


def test_who_is_only_taking_a_slot_holds_nothing_yet(sim: Sim) -> None:
    """It is locked without a pid then, and what lies in it is what a dead process left."""
    with driver(sim) as cuda:
        cuda.open().alloc(1 << 30)
        (holder,) = state.holders(sim.state)
        with open(sim.state, "r+b") as file:
            file.seek(state.SLOT_AT + 64 * holder.slot)
            file.write(bytes(8))
        assert state.holders(sim.state) == []
        assert state.charged(sim.state) == holder.bytes


def test_costs_have_the_same_names_in_c_and_python() -> None:
    """What `sim start` settles is what the driver reads."""
    asked = re.findall(r'"cost\.(\w+)"', (SIMGPU / "cuda" / "init.c").read_text())
    assert set(asked) == set(costs.DEFAULTS) == set(costs.DRAWN_FROM) == set(costs.LARGEST)


@pytest.mark.parametrize(
    ("spec", "names"),
    [
        ("t4-16gb", ("t4-16gb",)),
        ("a100-80gb:2", ("a100-80gb", "a100-80gb")),
        ("a100-80gb,t4-16gb:2", ("a100-80gb", "t4-16gb", "t4-16gb")),
        ("t4-16gb:16", ("t4-16gb",) * 16),
    ],
)
def test_a_spec_names_boards(spec: str, names: tuple[str, ...]) -> None:
    """One name a device, in order."""
    assert boards.parse(spec) == names


@pytest.mark.parametrize(
    "spec", ["", "a100", "t4-16gb:", "t4-16gb:x", "t4-16gb:-1", "t4-16gb:17", "t4-16gb,,", ",", "t4-16gb:²"]
)
def test_a_wrong_spec_is_refused(spec: str) -> None:
    """With GP107 and exit status 2, whatever is wrong."""
    with pytest.raises(GpuportionError) as refused:
        boards.parse(spec)
    assert (refused.value.code, refused.value.exit_status) == ("GP107", 2)


@pytest.mark.parametrize(
    "given",
    [
        {"granularity": 3 << 20},
        {"granularity": 0},
        {"slab": 0},
        {"small": 4 << 20},
        {"context": 1},
        {"contexts": 0},
        {"module": -65536},
    ],
)
def test_a_wrong_cost_is_refused(given: dict[str, int]) -> None:
    """Not a multiple of 64 KiB, out of range, unknown."""
    with pytest.raises(GpuportionError):
        costs.settle(given, None)


def test_a_seed_draws_what_is_not_given() -> None:
    """The same seed the same costs, other seeds others; what is given stays."""
    assert costs.settle(None, None) == costs.DEFAULTS
    assert costs.settle(None, 3) == costs.settle(None, 3)
    assert len({tuple(costs.settle(None, seed).items()) for seed in range(20)}) > 15
    assert costs.settle({"context": 65536}, 3)["context"] == 65536


def test_a_simulation_starts_and_ends(start: Start, tmp_path: Path) -> None:
    """Its folder has all that the docstring draws, and nothing of it is left afterwards."""
    sim = start("a100-80gb:2", cdi_dir=str(tmp_path / "cdi"))
    assert sorted(os.listdir(sim.lib)) == ["libcuda.so", "libcuda.so.1", "libnvidia-ml.so.1"]
    assert os.stat(sim.state).st_mode & 0o777 == 0o666
    found = simgpu.status(sim.directory)
    assert found is not None and (found.sim.devices, found.holders) == (sim.devices, ())
    simgpu.stop(sim.directory, str(tmp_path / "cdi"))
    assert simgpu.status(sim.directory) is None
    assert not os.path.exists(sim.directory)
    assert os.listdir(tmp_path / "cdi") == []
    simgpu.stop(sim.directory, str(tmp_path / "cdi"))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: device nodes")
def test_device_nodes_have_nvidias_numbers(start: Start) -> None:
    """Character devices 195:n, 195:255, the one of unified memory, and those of MIG's capabilities."""
    sim = start("t4-16gb:2")
    folder = Path(sim.directory, "dev")
    numbers = {
        str(path.relative_to(folder)): path.stat().st_rdev for path in folder.rglob("*") if not path.is_dir()
    }
    expected = {"nvidia0": (195, 0), "nvidia1": (195, 1), "nvidiactl": (195, 255), "nvidia-uvm": (511, 0)}
    expected |= {"nvidia-caps/nvidia-cap1": (510, 1), "nvidia-caps/nvidia-cap2": (510, 2)}
    assert numbers == {name: os.makedev(*number) for name, number in expected.items()}


def test_a_simulation_in_use_is_not_replaced(sim: Sim, start: Start) -> None:
    """Starting another one there is refused while a process has the driver open; `ensure` gives the same one."""
    with driver(sim) as cuda:
        cuda.open()
        with pytest.raises(GpuportionError, match="in use"):
            start("t4-16gb")
        again = simgpu.ensure("a100-80gb", sim.directory, cdi_dir=None, libraries=sim.lib)
        assert again.devices == sim.devices
    assert start("t4-16gb").devices[0].board == "t4-16gb"


def test_the_cdi_spec_has_each_device_by_every_name() -> None:
    """Index, UUID and `all`; nodes for the device, libraries and the state for all of them."""
    spec = cdi.spec("/s", ["GPU-a", "GPU-b"])
    nodes = {
        device["name"]: [node["path"] for node in device["containerEdits"]["deviceNodes"]]
        for device in spec["devices"]
    }
    assert nodes == {
        "0": ["/dev/nvidia0"],
        "1": ["/dev/nvidia1"],
        "GPU-a": ["/dev/nvidia0"],
        "GPU-b": ["/dev/nvidia1"],
        "all": ["/dev/nvidia0", "/dev/nvidia1"],
    }
    edits = spec["containerEdits"]
    assert [node["hostPath"] for node in edits["deviceNodes"]] == ["/s/dev/nvidiactl", "/s/dev/nvidia-uvm"]
    targets = {os.path.basename(mount["containerPath"]): mount["hostPath"] for mount in edits["mounts"]}
    assert targets == {
        "libcuda.so.1": "/s/lib/libcuda.so.1",
        "libcuda.so": "/s/lib/libcuda.so.1",
        "libnvidia-ml.so.1": "/s/lib/libnvidia-ml.so.1",
        "gpuportion-sim": "/s/state",
    }
    assert edits["env"] == ["NVIDIA_VISIBLE_DEVICES=void"]
    assert (spec["cdiVersion"], spec["kind"]) == ("0.5.0", "nvidia.com/gpu")


def test_the_cdi_spec_names_mig_devices(start: Start, tmp_path: Path) -> None:
    """As nvidia-ctk: `0:1` and the MIG UUID, with the board's node and both capabilities', not the board itself."""
    sim = start("a100-40gb,t4-16gb", cdi_dir=str(tmp_path / "cdi"), behaviour=Behaviour(mig=True))
    with Nvml(sim) as nvml:
        nvml.ask("create(9, 4)"), nvml.ask("create(19, 0)")
        uuids = [nvml.ask("compute(1, 2)")[1], nvml.ask("compute(7, 0)")[1]]
    before = json.loads((tmp_path / "cdi" / cdi.FILE).read_text())
    assert [device["name"] for device in before["devices"]] == ["1", sim.devices[1].uuid, "all"]
    simgpu.refresh(sim, str(tmp_path / "cdi"))
    spec = json.loads((tmp_path / "cdi" / cdi.FILE).read_text())
    nodes = {
        device["name"]: [
            node["path"].removeprefix("/dev/") for node in device["containerEdits"]["deviceNodes"]
        ]
        for device in spec["devices"]
    }
    first = ["nvidia0", "nvidia-caps/nvidia-cap12", "nvidia-caps/nvidia-cap13"]
    second = ["nvidia0", "nvidia-caps/nvidia-cap66", "nvidia-caps/nvidia-cap67"]
    whole = ["nvidia1"]
    assert nodes == {
        "1": whole,
        "0:0": first,
        "0:1": second,
        sim.devices[1].uuid: whole,
        uuids[0]: first,
        uuids[1]: second,
        "all": [*whole, *first, *second[1:]],
    }
    assert all(
        os.path.exists(node["hostPath"])
        for device in spec["devices"]
        for node in device["containerEdits"]["deviceNodes"]
    )


@pytest.mark.parametrize(
    ("behaviour", "said"),
    [
        (Behaviour(faults="nvmlGpuInstanceDestroy@0=19"), "no rule"),
        (Behaviour(faults="nvmlGpuInstanceDestroy@1-0=19"), "no rule"),
        (Behaviour(faults="execve=1"), "no rule"),
        (Behaviour(driver="535"), "no version"),
        (Behaviour(driver="535.1\nmig 1"), "no version"),
    ],
)
def test_a_wrong_behaviour_is_refused(behaviour: Behaviour, said: str) -> None:
    """Before anything is made."""
    with pytest.raises(GpuportionError, match=said):
        behaviour.settings(1)


def test_a_state_of_another_version_is_made_anew(start: Start, tmp_path: Path) -> None:
    """It has no status, and `ensure` replaces it."""
    sim = start("t4-16gb")
    text = Path(sim.state).read_bytes()
    Path(sim.state).write_bytes(text.replace(b"gpuportion-sim 2", b"gpuportion-sim 1"))
    assert simgpu.status(sim.directory) is None
    again = simgpu.ensure("t4-16gb", sim.directory, cdi_dir=None, libraries=sim.lib)
    assert again.devices[0].uuid != sim.devices[0].uuid
