"""Device nodes of GPUs that no CDI spec tells of, named by us: `/dev/nvidia<minor>`, where the driver has it.

A spec that was made while a GPU was in MIG mode does not have it as a whole, and none is made anew when that ends. What
is the same for all GPUs (the driver's files, hooks, control nodes) is the spec's as ever. Nodes for graphics are left
out. Pure."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from typing import Final

from gpuportion.errors import GpuportionError
from gpuportion.shim import cdi, strip

NEEDED: Final = "/dev/nvidiactl"
"""Where this node of the driver's is on the host, its others are too."""


def edits(specs: Sequence[cdi.Spec], minors: Sequence[int]) -> cdi.ContainerEdits:
    """What GPUs of these minor numbers need. GpuportionError GP302: no spec has the driver for all devices."""
    driver = cdi.common(specs, cdi.GPU_KIND)
    dev = folder(driver)
    return driver.edits.plus(cdi.ContainerEdits(device_nodes=tuple(node(dev, minor) for minor in minors)))


def folder(driver: cdi.Spec) -> str:
    """The host's /dev by a spec; of a simulated driver it is another. GpuportionError GP302: it does not tell."""
    for one in (driver.edits, *driver.devices.values()):
        for each in one.device_nodes:
            if each.path == NEEDED:
                return posixpath.dirname(each.host_path)
    raise GpuportionError("GP302", why=f"the CDI spec {driver.source} has no {NEEDED}. {cdi.ANEW}")


def node(dev: str, minor: int) -> cdi.DeviceNode:
    """Of the GPU with this minor number, below `dev` on the host."""
    name = f"nvidia{minor}"
    return cdi.DeviceNode(f"/dev/{name}", f"{dev}/{name}", type="c", major=strip.NVIDIA_MAJOR, minor=minor)
