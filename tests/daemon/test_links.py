"""Links between GPUs as NVML tells them, and that containers get those that belong together."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.daemon import Daemon, Sleeper

from gpuportion import simgpu

READ = (
    "import json; from gpuportion.allocator.inventory import Nvml\n"
    "print(json.dumps([[one.uuid, one.links] for one in Nvml().sample().readings]))"
)


@pytest.mark.parametrize(
    ("boards", "ranks"),
    [
        # two on a switch, four on a host bridge, eight a NUMA node
        pytest.param("l4-24gb:5", [0, 50, 30, 30, 20], id="pcie"),
        # twelve links each, by turns to three others
        pytest.param("a100-80gb:4", [0, 104, 104, 104], id="nvlink"),
        pytest.param("a100-80gb:2,l4-24gb:1", [0, 112, 30], id="both"),
        pytest.param("l4-24gb:1", [0], id="alone"),
    ],
)
def test_links_are_what_nvml_says(tmp_path: Path, boards: str, ranks: list[int]) -> None:
    """Of the first GPU to each other one."""
    sim = simgpu.start(boards, str(tmp_path / "sim"), cdi_dir=None)
    env = {"GPUPORTION_NVML": f"{sim.lib}/libnvidia-ml.so.1", "GPUPORTION_SIM_STATE": sim.state}
    done = subprocess.run(
        [sys.executable, "-c", READ],
        env={"PATH": "/usr/bin:/bin", **env},
        capture_output=True,
        text=True,
        check=True,
    )
    readings = json.loads(done.stdout)
    links = readings[0][1]
    assert [links.get(uuid, 0) for uuid, _ in readings] == ranks


def test_two_gpus_on_one_switch_go_together(tmp_path: Path) -> None:
    """The single portion comes first and leaves the other pair whole."""
    with Daemon(tmp_path, sim="l4-24gb:4") as daemon, Sleeper() as one, Sleeper() as two:
        daemon.confirm(daemon.create("GPU_MEMORY_LIMIT=1G", id="one").token, one)
        daemon.confirm(daemon.create("GPU_COUNT=2", id="two").token, two)
        indexes = {row["container"]: [gpu["index"] for gpu in row["gpus"]] for row in daemon.ps()}
        assert indexes == {"one": [0], "two": [2, 3]}
