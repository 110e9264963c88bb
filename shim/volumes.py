"""Where a container's read-only volumes lie over the places of a driver's files.

An engine makes the place that a file is mounted at, but not in a volume that is read-only. Which of these places
are in the volume already only the host's file system knows: here they are named. Pure.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def read_only(mounts: Sequence[Mapping[str, Any]], targets: Iterable[str]) -> dict[str, str]:
    """Each target that lies in a read-only bind mount -> the host path that it has there."""
    found = {}
    for target in targets:
        volume = _over(mounts, target)
        if volume is not None and _is_read_only_bind(volume):
            below = posixpath.relpath(target, _destination(volume))
            found[target] = posixpath.normpath(posixpath.join(str(volume.get("source")), below))
    return found


def _over(mounts: Sequence[Mapping[str, Any]], target: str) -> Mapping[str, Any] | None:
    """The last mount at or above it: what is seen there."""
    over = None
    for mount in mounts:
        place = _destination(mount)
        if target == place or target.startswith(place.rstrip("/") + "/"):
            over = mount
    return over


def _destination(mount: Mapping[str, Any]) -> str:
    return posixpath.normpath("/" + str(mount.get("destination")).lstrip("/"))


def _is_read_only_bind(mount: Mapping[str, Any]) -> bool:
    options = mount.get("options")
    words = set(options) if isinstance(options, list) else set()
    return "ro" in words and ("bind" in words or "rbind" in words or mount.get("type") == "bind")
