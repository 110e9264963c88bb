"""What a grant that is a MIG instance puts into a container's OCI spec: the driver, and the nodes of that instance.

The driver's files, hooks and environment are what the CDI spec has for all devices. The device nodes are named by us,
because nothing writes a CDI spec anew when instances change:

    /dev/nvidia<minor>                       the GPU that the instance is of
    /dev/nvidiactl, nvidia-uvm, nvidia-uvm-tools
    /dev/nvidia-caps/nvidia-cap<n>           two: of the GPU instance and of its compute instance

Knows no host: it is told what the numbers are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from gpuportion.allocator import gpu_nodes
from gpuportion.allocator.mig import capabilities
from gpuportion.allocator.mig.portion import MigPortion
from gpuportion.shim import cdi

CONTROL: Final = (gpu_nodes.NEEDED, "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools")
"""Nodes that every user of a GPU needs. Whatever else a CDI spec gives to all is left out: another GPU, graphics."""
READABLE: Final = 0o444
"""Of a capability's node, as the driver makes it: to open it for reading is to have the capability."""


def container_edits(
    specs: Sequence[cdi.Spec], portion: MigPortion, major: int, minors: Sequence[int]
) -> cdi.ContainerEdits:
    """The driver of the CDI specs, and the nodes of one instance."""
    driver = cdi.common(specs, cdi.GPU_KIND)
    known = {node.path: node for one in (driver.edits, *driver.devices.values()) for node in one.device_nodes}
    dev = gpu_nodes.folder(driver)
    return cdi.ContainerEdits(
        env=driver.edits.env,
        device_nodes=(
            *(known[path] for path in CONTROL if path in known),
            gpu_nodes.node(dev, portion.minor),
            *(capability(dev, major, minor) for minor in minors),
        ),
        mounts=driver.edits.mounts,
        hooks=driver.edits.hooks,
        gids=driver.edits.gids,
    )


def capability(dev: str, major: int, minor: int) -> cdi.DeviceNode:
    """The node of one capability, below `dev` on the host."""
    name = f"{capabilities.FOLDER}/nvidia-cap{minor}"
    return cdi.DeviceNode(
        f"/dev/{name}", f"{dev}/{name}", "c", major, minor, file_mode=READABLE, permissions="r"
    )
