"""The CDI spec by which containers get the simulated driver as they would get a real one.

Pure: values in, a dict out.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from typing import Any, Final

FILE: Final = "nvidia.com-gpu.json"
KIND: Final = "nvidia.com/gpu"
STATE_INSIDE: Final = "/dev/gpuportion-sim"
CONTROL_NODES: Final = ("nvidiactl", "nvidia-uvm")
LIBRARIES: Final = {
    "libcuda.so.1": "libcuda.so.1",
    "libcuda.so": "libcuda.so.1",
    "libnvidia-ml.so.1": "libnvidia-ml.so.1",
}
"""Name in the container: name in `lib/`."""


def spec(directory: str, uuids: Sequence[str]) -> dict[str, Any]:
    """The spec for the devices of the simulation in `directory`: by index, by UUID, and `all`."""
    indices = range(len(uuids))
    devices = [_device(directory, str(i), [i]) for i in indices]
    devices += [_device(directory, uuid, [i]) for i, uuid in enumerate(uuids)]
    devices.append(_device(directory, "all", indices))
    return {"cdiVersion": "0.5.0", "kind": KIND, "devices": devices, "containerEdits": _driver(directory)}


def _node(directory: str, name: str) -> dict[str, str]:
    return {"path": f"/dev/{name}", "hostPath": f"{directory}/dev/{name}"}


def _device(directory: str, name: str, indices: Sequence[int]) -> dict[str, Any]:
    return {
        "name": name,
        "containerEdits": {"deviceNodes": [_node(directory, f"nvidia{i}") for i in indices]},
    }


def _mount(source: str, target: str, mode: str) -> dict[str, Any]:
    return {"hostPath": source, "containerPath": target, "options": [mode, "nosuid", "nodev", "bind"]}


def _driver(directory: str) -> dict[str, Any]:
    folder = f"/usr/lib/{platform.machine()}-linux-gnu"
    mounts = [_mount(f"{directory}/lib/{file}", f"{folder}/{name}", "ro") for name, file in LIBRARIES.items()]
    return {
        "env": ["NVIDIA_VISIBLE_DEVICES=void"],
        "deviceNodes": [_node(directory, name) for name in CONTROL_NODES],
        "mounts": [*mounts, _mount(f"{directory}/state", STATE_INSIDE, "rw")],
    }
