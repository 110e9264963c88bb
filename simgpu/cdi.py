"""The CDI spec by which containers get the simulated driver as they would get a real one.

Pure: values in, a dict out.
"""

from __future__ import annotations

import platform
from collections.abc import Collection, Sequence
from typing import Any, Final, Protocol

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


class MigDevice(Protocol):
    """A MIG device: of which device, the how manieth of it, its UUID, the minors of its capabilities."""

    @property
    def device(self) -> int: ...
    @property
    def index(self) -> int: ...
    @property
    def uuid(self) -> str: ...
    @property
    def minors(self) -> tuple[int, int]: ...


def spec(
    directory: str, uuids: Sequence[str], divided: Collection[int] = (), parts: Sequence[MigDevice] = ()
) -> dict[str, Any]:
    """The spec for the devices of the simulation in `directory`: by index, by UUID, and `all`.

    The `divided` devices, those in MIG mode, are there by their MIG devices alone, as nvidia-ctk has it: `0:1`,
    and `MIG-...`.
    """
    whole = [i for i in range(len(uuids)) if i not in divided]
    devices = [_device(directory, str(i), _whole([i])) for i in whole]
    devices += [_device(directory, f"{part.device}:{part.index}", _part(part)) for part in parts]
    devices += [_device(directory, uuids[i], _whole([i])) for i in whole]
    devices += [_device(directory, part.uuid, _part(part)) for part in parts]
    everything = _whole(whole) + [name for part in parts for name in _part(part)]
    devices.append(_device(directory, "all", list(dict.fromkeys(everything))))
    return {"cdiVersion": "0.5.0", "kind": KIND, "devices": devices, "containerEdits": _driver(directory)}


def _node(directory: str, name: str) -> dict[str, str]:
    return {"path": f"/dev/{name}", "hostPath": f"{directory}/dev/{name}"}


def _whole(indices: Sequence[int]) -> list[str]:
    return [f"nvidia{i}" for i in indices]


def _part(part: MigDevice) -> list[str]:
    return [f"nvidia{part.device}", *(f"nvidia-caps/nvidia-cap{minor}" for minor in part.minors)]


def _device(directory: str, name: str, nodes: Sequence[str]) -> dict[str, Any]:
    edits = {"deviceNodes": [_node(directory, node) for node in nodes]}
    return {"name": name, "containerEdits": edits}


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
