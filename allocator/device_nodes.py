"""Device numbers of this host, as values for the spec edit: CDI may leave them out, the kernel knows."""

from __future__ import annotations

import os
import stat

from gpuportion.shim import cdi, strip

Numbers = tuple[str, int, int]
"""Type (c or b), major, minor."""


def numbers(edits: cdi.ContainerEdits) -> dict[str, Numbers]:
    """Host path -> numbers of each device node that `edits` names and this host has."""
    found = {}
    for node in edits.device_nodes:
        numbered = _numbers(node.host_path)
        if numbered is not None:
            found[node.host_path] = numbered
    return found


def _numbers(path: str) -> Numbers | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    if not (stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode)):
        return None
    kind = "c" if stat.S_ISCHR(status.st_mode) else "b"
    return kind, os.major(status.st_rdev), os.minor(status.st_rdev)


def driver_majors() -> frozenset[int]:
    """The character majors of NVIDIA's drivers on this host."""
    with open("/proc/devices", encoding="ascii", errors="replace") as file:
        return strip.majors(file.read())
