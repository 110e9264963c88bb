"""A GPU that no CDI spec has: the driver of the spec, and the GPU's own node."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.gpu_specs import UUID, document

from gpuportion.allocator import injection
from gpuportion.errors import GpuportionError
from gpuportion.shim import cdi

OTHER = "GPU-99999999-2222-3333-4444-555555555555"
KNOWN, UNKNOWN = injection.Card(0, UUID, 0), injection.Card(4, OTHER, 6)


Make = Callable[..., cdi.Spec]


@pytest.fixture
def spec(tmp_path: Path) -> Make:
    """Makes a spec of another host, whose files are below a folder of ours."""

    def make(**changes: Any) -> cdi.Spec:
        made = {**document(), **changes}
        edits = dict(made["containerEdits"])
        if "mounts" in edits:
            edits["mounts"] = [{**one, "hostPath": placed(one["hostPath"])} for one in edits["mounts"]]
        return cdi.parse({**made, "containerEdits": edits}, "/etc/cdi/nvidia.yaml")

    def placed(file: str) -> str:
        path = Path(f"{tmp_path}{file}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        return str(path)

    return make


def nodes(edits: cdi.ContainerEdits) -> list[str]:
    return [node.path for node in edits.device_nodes]


def test_its_node_is_named_by_the_drivers_number(spec: Make) -> None:
    """Not by NVML's index; all else is what any GPU of the spec gets."""
    found = injection.device_edits((spec(),), [UNKNOWN])
    assert nodes(found) == ["/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia6"]
    (node,) = (node for node in found.device_nodes if node.path == "/dev/nvidia6")
    assert (node.host_path, node.type, node.major, node.minor) == ("/dev/nvidia6", "c", 195, 6)
    known = injection.device_edits((spec(),), [KNOWN])
    assert (found.mounts, found.hooks, found.env) == (known.mounts, known.hooks, known.env)


def test_a_gpu_beside_it_that_the_spec_has_is_as_before(spec: Make) -> None:
    """Its nodes for graphics are there; nothing is there twice."""
    found = injection.device_edits((spec(),), [KNOWN, UNKNOWN])
    assert nodes(found) == [
        "/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia0", "/dev/dri/renderD128", "/dev/nvidia6",
    ]  # fmt: skip
    assert len(found.mounts) == len(set(found.mounts)) == 5


def test_the_host_s_dev_is_where_the_spec_has_it(spec: Make) -> None:
    """As of a driver in a folder of its own."""
    edits = {
        **document()["containerEdits"],
        "deviceNodes": [{"path": "/dev/nvidiactl", "hostPath": "/own/dev/nvidiactl"}],
    }
    found = injection.device_edits((spec(containerEdits=edits),), [UNKNOWN])
    assert [node.host_path for node in found.device_nodes] == ["/own/dev/nvidiactl", "/own/dev/nvidia6"]


@pytest.mark.parametrize(
    ("without", "said"),
    [("mounts", "mounts the driver's libcuda.so for all devices"), ("deviceNodes", "has no /dev/nvidiactl")],
)
def test_a_spec_without_the_driver_is_no_ground(spec: Make, without: str, said: str) -> None:
    """What to run is said."""
    edits = {key: value for key, value in document()["containerEdits"].items() if key != without}
    with pytest.raises(GpuportionError) as refusal:
        injection.device_edits((spec(containerEdits=edits),), [UNKNOWN])
    assert refusal.value.code == "GP302" and said in refusal.value.text
    assert "nvidia-ctk cdi generate" in refusal.value.text
