"""Where a container's read-only volumes lie over the places of a driver's files.

An engine makes the place that a file is mounted at, but not in a volume that is read-only. Which of these places
are in the volume already only the host's file system knows: here they are named. Pure.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gpuportion.shim.strip import plain_path


def any_at(mounts: Sequence[Mapping[str, Any]], places: frozenset[str]) -> bool:
    """Whether a read-only bind mount lies at one of these: elsewhere it's in nobody's way, and most are."""
    # Most have no "ro", and to ask a function about each of them takes three times as long.
    few = [mount for mount in mounts if isinstance(mount.get("options"), list) and "ro" in mount["options"]]
    return any(_is_read_only_bind(one) and plain_path(str(one.get("destination"))) in places for one in few)


def read_only(mounts: Sequence[Mapping[str, Any]], targets: Iterable[str]) -> dict[str, str]:
    """Each target that lies in a read-only bind mount -> the host path that it has there."""
    places = [(plain_path(str(mount.get("destination"))).rstrip("/") + "/", mount) for mount in mounts]
    found = {}
    for target in targets:
        place, volume = _over(places, target)
        if volume is not None and _is_read_only_bind(volume):
            below = posixpath.relpath(target, place)
            found[target] = posixpath.normpath(posixpath.join(str(volume.get("source")), below))
    return found


def _over(
    places: Sequence[tuple[str, Mapping[str, Any]]], target: str
) -> tuple[str, Mapping[str, Any] | None]:
    """The last mount at or above it, and where: what is seen there. Places end with a slash."""
    over: tuple[str, Mapping[str, Any] | None] = ("", None)
    below = target + "/"
    for place, mount in places:
        if below.startswith(place):
            over = place, mount
    return over


def _is_read_only_bind(mount: Mapping[str, Any]) -> bool:
    options = mount.get("options")
    if not isinstance(options, list) or "ro" not in options:
        return False
    return "bind" in options or "rbind" in options or mount.get("type") == "bind"
