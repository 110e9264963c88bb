"""What a MIG instance puts into a spec: the nodes of that instance and no other's, and nothing of ours."""

from __future__ import annotations

import dataclasses
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.gpu_specs import FILES, document

from gpuportion.allocator import mig_edits, mig_injection
from gpuportion.allocator.mig import capabilities
from gpuportion.allocator.mig.portion import MigPortion
from gpuportion.errors import GpuportionError
from gpuportion.hooks import stages
from gpuportion.shim import cdi, driver, spec

CONFIG = Path(__file__).parent / "docker-config.json"
PORTION = MigPortion(
    gpu="GPU-1",
    index=1,
    minor=0,
    gi=3,
    ci=0,
    uuid="MIG-1",
    profile="2g.10gb",
    memory=9856 << 20,
    compute=2,
    compute_total=7,
)
MINORS = "config 1\nmonitor 2\ngpu0/gi3/access 30\ngpu0/gi3/ci0/access 31\ngpu1/gi3/access 165\n"
DEVICES = (
    "Character devices:\n195 nvidia\n510 nvidia-caps\n511 nvidia-uvm\n\nBlock devices:\n  7 nvidia-caps\n"
)


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The driver's tables, as of one GPU with one instance."""
    (tmp_path / "driver/nvidia-caps").mkdir(parents=True)
    (tmp_path / "driver/nvidia-caps/mig-minors").write_text(MINORS)
    (tmp_path / "devices").write_text(DEVICES)
    monkeypatch.setenv(mig_injection.PROC_VARIABLE, str(tmp_path))
    return tmp_path


def specs(**changes: Any) -> list[cdi.Spec]:
    return [cdi.parse({**document(), **changes}, "/etc/cdi/nvidia.yaml")]


def edits() -> cdi.ContainerEdits:
    return mig_edits.container_edits(specs(), PORTION, 510, (30, 31))


def edited(before: dict[str, Any], **changes: Any) -> dict[str, Any]:
    hooks = stages.entries("/opt/gpuportion-hook", socket="/run/s", token="0" * 32, container="c1")
    paths = cdi.targets(specs(), cdi.GPU_KIND)
    numbers = {"/dev/nvidiactl": ("c", 195, 255), "/dev/nvidia-uvm": ("c", 511, 0)}
    made = driver.driver(edits(), numbers, None)
    values: dict[str, Any] = {"driver": made, "hooks": hooks, "interposer": None}
    values |= {"cdi_paths": paths, "driver_majors": frozenset({195, 510, 511})}
    return spec.edit(before, spec.Injection(**{**values, **changes}))


def docker() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(CONFIG.read_text())
    return loaded


def test_numbers_are_read_by_the_gpus_minor_and_the_instances_ids(proc: Path) -> None:
    """Not by NVML's index of the GPU, and not from the block devices."""
    assert mig_injection.numbers(PORTION) == (510, (30, 31))


def test_an_instance_that_the_table_lacks_is_known_by_its_own_file(proc: Path) -> None:
    """Drivers have used ids beyond the table's; one that neither has is refused."""
    (proc / "driver/nvidia-caps/mig-minors").write_text("config 1\ngpu0/gi33/access 7\n")
    with pytest.raises(GpuportionError, match="no device number of the MIG instance") as refusal:
        mig_injection.numbers(PORTION)
    assert refusal.value.code == "GP302"
    for name, minor in (("gi3", 300), ("gi3/ci0", 301)):
        folder = proc / "driver/nvidia/capabilities/gpu0/mig" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "access").write_text(f"DeviceFileMinor: {minor}\nDeviceFileMode: 292\n")
    assert mig_injection.numbers(PORTION) == (510, (300, 301))


def test_a_driver_without_capabilities_is_refused(proc: Path) -> None:
    """Without the major number no node can be made."""
    (proc / "devices").write_text("Character devices:\n195 nvidia\n")
    with pytest.raises(GpuportionError, match="has no nvidia-caps"):
        mig_injection.numbers(PORTION)


def test_the_major_number_is_the_character_devices() -> None:
    """A block device of that name has another one; a list without block devices is one, too."""
    assert capabilities.major_in("Character devices:\n510 nvidia-caps\n") == 510
    assert (
        capabilities.major_in("Character devices:\n195 nvidia\n\nBlock devices:\n  7 nvidia-caps\n") is None
    )


@given(st.text())
def test_nonsense_in_a_table_is_passed_over(text: str) -> None:
    """Read before, between and behind what counts, nothing else does."""
    lines = text.replace("\r", "\n").split("\n")
    table = "\n".join([*lines, "gpu0/gi3/access 30", *lines])
    assert capabilities.minor_in(table, "gpu0/gi3/access") == 30
    assert capabilities.minor_in(text, "gpu0/gi3/access") is None
    assert capabilities.minor_told(text) is None and capabilities.major_in(text) is None


def test_the_nodes_are_the_gpu_the_control_nodes_and_two_capabilities() -> None:
    """No other GPU's, none for graphics, and neither config (1) nor monitor (2)."""
    after = edited(docker())
    nodes = {node["path"]: node for node in after["linux"]["devices"]}
    ours = [path for path in nodes if path.startswith("/dev/nvidia")]
    assert ours == [
        "/dev/nvidiactl",
        "/dev/nvidia-uvm",
        "/dev/nvidia0",
        "/dev/nvidia-caps/nvidia-cap30",
        "/dev/nvidia-caps/nvidia-cap31",
    ]
    assert not any("dri" in path for path in nodes)
    cap = nodes["/dev/nvidia-caps/nvidia-cap31"]
    assert cap == {"path": cap["path"], "type": "c", "major": 510, "minor": 31, "fileMode": 0o444}
    rules = [rule for rule in after["linux"]["resources"]["devices"] if rule.get("major") in (195, 510, 511)]
    assert [(rule["major"], rule["minor"], rule["access"]) for rule in rules] == [
        (195, 255, "rwm"),
        (511, 0, "rwm"),
        (195, 0, "rwm"),
        (510, 30, "r"),
        (510, 31, "r"),
    ]
    assert all(rule["allow"] for rule in rules)


def test_the_driver_is_left_as_it_is() -> None:
    """No library of ours, no preload, no folder; the confirming hook and NVIDIA's own are there."""
    after = edited(docker())
    before = len(docker()["mounts"])
    assert [mount["source"] for mount in after["mounts"][before:]] == FILES
    preloads = [entry for entry in docker()["process"]["env"] if entry.startswith("LD_PRELOAD=")]
    assert [entry for entry in after["process"]["env"] if entry.startswith("LD_PRELOAD=")] == preloads
    assert "NVIDIA_VISIBLE_DEVICES=void" in after["process"]["env"]
    assert after["hooks"]["createRuntime"][0]["path"] == "/opt/gpuportion-hook"
    assert [hook["args"][1] for hook in after["hooks"]["createContainer"]] == [
        "create-symlinks",
        "update-ldcache",
    ]


def test_whatever_was_in_the_spec_of_nvidia_goes() -> None:
    """Another instance's capability, the one to make instances, and every whole GPU."""
    before = docker()
    for minor, name in ((1, "nvidia-caps/nvidia-cap1"), (165, "nvidia-caps/nvidia-cap165")):
        numbers = {"type": "c", "major": 510, "minor": minor}
        before["linux"]["devices"].append({"path": f"/dev/{name}", **numbers})
        before["linux"]["resources"]["devices"].append({"allow": True, **numbers, "access": "rw"})
    everything = {"allow": True, "type": "c", "major": 195, "access": "rwm"}
    before["linux"]["resources"]["devices"].append(everything)
    before["process"]["env"] += ["NVIDIA_MIG_CONFIG_DEVICES=all", "NVIDIA_VISIBLE_DEVICES=all"]
    after = edited(before)
    minors = {node["minor"] for node in after["linux"]["devices"] if node.get("major") == 510}
    ruled = {rule["minor"] for rule in after["linux"]["resources"]["devices"] if rule.get("major") == 510}
    assert minors == ruled == {30, 31}
    assert everything not in after["linux"]["resources"]["devices"]
    assert "NVIDIA_MIG_CONFIG_DEVICES=all" not in after["process"]["env"]


def test_an_images_own_choice_of_devices_stays() -> None:
    """`CUDA_VISIBLE_DEVICES=0` is the instance, the only device that there is; frameworks read it as a number."""
    before = docker()
    before["process"]["env"].append("CUDA_VISIBLE_DEVICES=0")
    assert "CUDA_VISIBLE_DEVICES=0" in edited(before)["process"]["env"]


def test_files_without_a_place_lie_in_a_folder_of_ours() -> None:
    """Where /usr is a read-only volume; as the driver's own."""
    place = FILES[0]
    after = edited(docker(), displaced=frozenset({place}))
    sources = {mount["destination"]: mount["source"] for mount in after["mounts"]}
    assert place not in sources
    assert sources[f"/.gpuportion/lib/{os.path.basename(place)}"] == place
    assert sources["/.gpuportion"] == "tmpfs"


def test_a_gpu_of_another_dev_folder_has_its_nodes_there() -> None:
    """A driver in a container of its own: the node is where the CDI spec has the control node."""
    text = json.dumps(document()).replace(
        '"path": "/dev/nvidiactl"', '"path": "/dev/nvidiactl", "hostPath": "/d/nvidiactl"'
    )
    moved = [cdi.parse(json.loads(text), "/etc/cdi/nvidia.yaml")]
    nodes = mig_edits.container_edits(moved, PORTION, 510, (30, 31)).device_nodes
    places = {node.path: node.host_path for node in nodes}
    assert places["/dev/nvidia0"] == "/d/nvidia0"
    assert places["/dev/nvidia-caps/nvidia-cap30"] == "/d/nvidia-caps/nvidia-cap30"


def test_a_spec_without_the_control_node_is_refused() -> None:
    """It is not the driver's."""
    document_ = document()
    document_["containerEdits"] = {**document_["containerEdits"], "deviceNodes": []}
    document_["devices"] = []
    with pytest.raises(GpuportionError, match="has no /dev/nvidiactl"):
        mig_edits.container_edits([cdi.parse(document_, "x.yaml")], PORTION, 510, (30, 31))


def test_the_drivers_files_and_environment_come_along() -> None:
    """And the groups that its nodes are of."""
    common = {**document()["containerEdits"], "env": ["A=b"], "additionalGids": [44]}
    found = mig_edits.container_edits(specs(containerEdits=common), PORTION, 510, (30, 31))
    assert (found.env, found.gids) == (("A=b",), (44,))
    assert [mount.source for mount in found.mounts] == FILES and len(found.hooks) == 2


def test_the_drivers_tables_are_the_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """In /proc, whether there is a driver or not."""
    monkeypatch.delenv(mig_injection.PROC_VARIABLE, raising=False)
    with pytest.raises(GpuportionError, match=r" /proc/(devices|driver)"):
        mig_injection.numbers(dataclasses.replace(PORTION, minor=99999))


def test_a_table_may_hold_what_is_no_text(proc: Path) -> None:
    """Names of other drivers."""
    (proc / "devices").write_bytes(b"Character devices:\n  9 \xff\xfe\n510 nvidia-caps\n")
    assert mig_injection.numbers(PORTION)[0] == 510


def capability(path: str, major: int | None = 1, minor: int | None = 3) -> cdi.DeviceNode:
    return cdi.DeviceNode("/dev/x", path, "c", major, minor)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes device nodes")
def test_on_a_host_without_the_nodes_they_are_made_for_user_namespaces(tmp_path: Path) -> None:
    """Once, readable by all; a node that is no capability's, or has no number, is not ours to make."""
    folder = tmp_path / "nvidia-caps"
    others = (
        capability(f"{tmp_path}/nvidia0"),
        capability(f"{folder}/a", None),
        capability(f"{folder}/b", minor=None),
    )
    before = os.umask(0)
    try:
        for _ in range(2):
            mig_injection.make_nodes(
                cdi.ContainerEdits(device_nodes=(*others, capability(f"{folder}/nvidia-cap30")))
            )
    finally:
        os.umask(before)
    assert [one.name for one in tmp_path.rglob("*")] == ["nvidia-caps", "nvidia-cap30"]
    made = os.stat(folder / "nvidia-cap30")
    assert (stat.S_IMODE(made.st_mode), made.st_rdev) == (0o444, os.makedev(1, 3))
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes device nodes")
def test_a_node_that_cannot_be_made_or_is_another_is_refused(tmp_path: Path) -> None:
    """Nothing is put in the place of what is there."""
    file, folder = tmp_path / "nvidia-caps", tmp_path / "host/nvidia-caps"
    file.touch()
    folder.mkdir(parents=True)
    os.mknod(folder / "other", stat.S_IFCHR, os.makedev(1, 3))
    (folder / "text").touch()
    number = "it is there with another number than 1:5. Remove it"
    for path, says in (
        (file / "x", f"GP306 making {file}/x failed: File exists"),
        (folder / "other", f"GP306 using {folder}/other failed: {number}"),
        (folder / "text", f"GP306 using {folder}/text failed: {number}"),
    ):
        with pytest.raises(GpuportionError) as refusal:
            mig_injection.make_nodes(cdi.ContainerEdits(device_nodes=(capability(str(path), minor=5),)))
        assert refusal.value.text == says
