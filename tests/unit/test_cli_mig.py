"""What `gpuportion mig` and `gpuportion node set-role` print of the daemon's answers."""

from __future__ import annotations

from typing import Any

import pytest

from gpuportion.cli import mig, node, table
from gpuportion.errors import GpuportionError

MIB = 1 << 20
IDLE: dict[str, Any] = {
    "gpu": 0,
    "gpu_uuid": "GPU-0",
    "gi": 3,
    "ci": 0,
    "uuid": "MIG-1",
    "profile": "2g.10gb",
    "start": 0,
    "size": 2,
    "memory": 9856 * MIB,
    "compute": 2,
    "state": "idle",
    "ours": True,
    "container": None,
    "name": None,
    "idle_s": 200.0,
    "processes": 0,
}


def test_an_instance_is_a_line() -> None:
    """Slices as a range; what is not known, or does not apply, is a dash."""
    assert mig.instance_line(IDLE) == {
        "GPU": "0",
        "GI": "3",
        "PROFILE": "2g.10gb",
        "SLICES": "0-1",
        "MEMORY": "9856 MiB",
        "STATE": "idle",
        "CONTAINER": "",
        "NAME": "",
        "IDLE": "3m",
        "UUID": "MIG-1",
    }
    used = {
        "state": "in-use",
        "container": "c" * 64,
        "name": "a\x1b[2J",
        "idle_s": None,
        "size": 1,
        "start": 6,
    }
    line = mig.instance_line({**IDLE, **used})
    assert (line["SLICES"], line["CONTAINER"], line["NAME"], line["IDLE"]) == ("6", "c" * 12, "a?[2J", "")
    assert set(line) == set(mig.INSTANCES)


def test_an_instance_that_is_being_made_has_no_ids_yet() -> None:
    """Nor has one of which the driver tells nothing."""
    unknown = {key: None for key in ("gi", "ci", "uuid", "memory", "compute", "idle_s", "size", "start")}
    line = mig.instance_line({**IDLE, **unknown, "state": "making"})
    shown = table.render(mig.INSTANCES, [line]).splitlines()[1].split()
    assert shown == ["0", "-", "2g.10gb", "-", "-", "making", "-", "-", "-", "-"]


def test_a_profile_is_a_line_and_a_gpu_without_any_as_well() -> None:
    """NVML's memory, and where it may start."""
    row = {"name": "1g.5gb", "id": 19, "memory": 4864 * MIB, "compute": 1, "size": 1}
    offered = {**row, "starts": [0, 1, 2], "most": 7, "room": 0}
    first, second = mig.profile_lines(
        [
            {"index": 0, "model": "NVIDIA A100", "profiles": [offered]},
            {"index": 1, "model": "NVIDIA A100", "profiles": []},
        ]
    )
    assert first == {
        "GPU": "0",
        "MODEL": "NVIDIA A100",
        "PROFILE": "1g.5gb",
        "MEMORY": "4864 MiB",
        "COMPUTE": "1",
        "SLICES": "1",
        "STARTS": "0,1,2",
        "MOST": "7",
        "ROOM": "0",
    }
    assert second == {"GPU": "1", "MODEL": "NVIDIA A100"}


def test_what_was_removed_is_named_by_its_place() -> None:
    """The id of an instance is used again; profile and place say what has room now."""
    assert mig.named(IDLE) == "2g.10gb at 0 of GPU 0"


@pytest.mark.parametrize("name", [None, "gpu-1.example.org", "gpu-1", "GPU-1", "localhost"])
def test_this_hosts_own_names_are_known(name: str | None) -> None:
    """Whole or short, in any case."""
    node.refuse_other_host(name, "gpu-1.example.org")


def test_another_hosts_gpus_are_changed_there() -> None:
    """A daemon changes its own node alone."""
    with pytest.raises(GpuportionError, match="this host is gpu-1") as refusal:
        node.refuse_other_host("gpu-2", "gpu-1")
    assert refusal.value.code == "GP112" and "ssh gpu-2" in str(refusal.value)


def test_a_change_of_role_says_what_is_left_to_do() -> None:
    """A note only where there is something."""
    row = {"index": 0, "model": "NVIDIA A100", "role": "mig", "mig": "on", "note": ""}
    assert node.told(row) == "GPU 0 (NVIDIA A100) has the role mig; MIG mode is on"
    pending = {**row, "mig": "off, on after a reset", "note": "MIG mode is on after a reset: do it"}
    assert node.told(pending).endswith("; MIG mode is off; MIG mode is on after a reset: do it")
    simulated = node.told(pending, reset="gpuportion sim reset --gpu 0")
    assert simulated.endswith("MIG mode is off, on after a reset: gpuportion sim reset --gpu 0")


def test_a_gpu_without_room_says_why() -> None:
    """Once for each, and nothing of those that serve."""
    rows = [{"index": 0, "note": ""}, {"index": 1, "note": "it serves fractions"}]
    assert mig.profile_notes(rows) == ["GPU 1 has no room: it serves fractions"]
