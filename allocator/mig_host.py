"""What a process of the host needs for the MIG instance that it was given: two nodes, and variables.

    /dev/nvidia-caps/nvidia-cap<n>      made where the host lacks them, as nvidia-modprobe makes them: for everybody
    CUDA_VISIBLE_DEVICES=MIG-<uuid>     what CUDA is to take
    LD_LIBRARY_PATH                     only where the daemon was told of a driver that the loader does not find: a
                                        simulated one

No more keeps the process to it: the nodes of other instances are there for every process of a host, and a program that
sets the variable anew finds them. Knows nothing of grants."""

from __future__ import annotations

import os
from typing import Final

from gpuportion.allocator import inventory, mig_edits, mig_injection
from gpuportion.allocator.mig.portion import MigPortion
from gpuportion.shim import cdi

VISIBLE: Final = "CUDA_VISIBLE_DEVICES"


def environment(portion: MigPortion) -> dict[str, str]:
    """What to set. GpuportionError GP302 or GP306: the nodes are not there, and can't be made."""
    major, minors = mig_injection.numbers(portion)
    nodes = tuple(mig_edits.capability(_dev(), major, minor) for minor in minors)
    mig_injection.make_nodes(cdi.ContainerEdits(device_nodes=nodes))
    elsewhere = os.environ.get(inventory.LIBRARY_VARIABLE)
    found = {"LD_LIBRARY_PATH": os.path.dirname(elsewhere)} if elsewhere else {}
    return {VISIBLE: portion.uuid, **found}


def _dev() -> str:
    """The host's /dev; of a simulated driver, what lies beside its /proc."""
    proc = os.environ.get(mig_injection.PROC_VARIABLE) or "/proc"
    return os.path.join(os.path.dirname(proc), "dev")
