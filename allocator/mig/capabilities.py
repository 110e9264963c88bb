"""Which device nodes let a process use a MIG instance: the driver's tables of them, read as text.

    /proc/driver/nvidia-caps/mig-minors                             gpu0/gi3/ci0/access 41
    /proc/driver/nvidia/capabilities/gpu0/mig/gi3/ci0/access        DeviceFileMinor: 41
    /proc/devices                                                   510 nvidia-caps

`gpu0` is the GPU's minor number, not NVML's index. One node is for the GPU instance, one for its compute instance;
both are needed. Those called `config` and `monitor`, by which instances are made and neighbours are seen, are never
asked for here. Pure."""

from __future__ import annotations

import re
from typing import Final

from gpuportion.allocator.mig.portion import MigPortion

MINORS: Final = "driver/nvidia-caps/mig-minors"
CAPABILITIES: Final = "driver/nvidia/capabilities"
FOLDER: Final = "nvidia-caps"
"""Below /dev."""


def names(portion: MigPortion) -> tuple[str, str]:
    """What mig-minors calls the two capabilities of an instance."""
    instance = f"gpu{portion.minor}/gi{portion.gi}"
    return f"{instance}/access", f"{instance}/ci{portion.ci}/access"


def files(portion: MigPortion) -> tuple[str, str]:
    """The file of each below CAPABILITIES, where an instance that is there has one."""
    instance = f"gpu{portion.minor}/mig/gi{portion.gi}"
    return f"{instance}/access", f"{instance}/ci{portion.ci}/access"


def minor_in(mig_minors: str, name: str) -> int | None:
    """The minor number that a mig-minors gives to a capability."""
    found = re.search(rf"^{re.escape(name)} ([0-9]+)$", mig_minors, re.MULTILINE)
    return int(found[1]) if found else None


def minor_told(access: str) -> int | None:
    """The same, of the capability's own file."""
    found = re.search(r"^DeviceFileMinor: *([0-9]+)$", access, re.MULTILINE)
    return int(found[1]) if found else None


def major_in(proc_devices: str) -> int | None:
    """The major number of the capabilities' nodes; None where the driver has none."""
    characters = proc_devices.partition("Block devices:")[0]
    found = re.search(r"^ *([0-9]+) nvidia-caps$", characters, re.MULTILINE)
    return int(found[1]) if found else None
