"""What people call a container: from its OCI spec's annotations, or from docker's own file about it.

Only for messages and lists; a wrong name harms nobody, so what cannot be read is no error.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from typing import Any, Final

ANNOTATIONS: Final = (
    "io.kubernetes.cri.container-name",
    "io.kubernetes.cri-o.ContainerName",
    "io.kubernetes.container.name",
    "io.podman.annotations.name",
    "nerdctl/name",
)
DOCKER_MOUNTS: Final = ("/etc/hostname", "/etc/hosts", "/etc/resolv.conf")
"""Where docker mounts files that lie beside its config.v2.json."""

MAX_BYTES: Final = 1 << 20
LONGEST: Final = 64


def name_of(id: str, spec: Mapping[str, Any]) -> str:
    """A printable name, at most 64 characters; "" where none is known."""
    found = _annotated(spec.get("annotations")) or _of_docker(id, spec)
    if not found:
        hostname = spec.get("hostname")
        found = hostname if isinstance(hostname, str) and hostname and not id.startswith(hostname) else ""
    return printable(str(found))


def _annotated(annotations: object) -> object:
    """What the first of these annotations says that says anything."""
    if not annotations or not isinstance(annotations, dict):
        return None
    return next((annotations[key] for key in ANNOTATIONS if annotations.get(key)), None)


def printable(text: str, longest: int = LONGEST) -> str:
    text = text[:longest]
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


def _of_docker(id: str, spec: Mapping[str, Any]) -> str:
    """docker passes no name, but mounts files of the folder in which it keeps it."""
    mounts, end = spec.get("mounts"), f"/containers/{id}"
    for mount in mounts if isinstance(mounts, list) else ():
        if not isinstance(mount, dict) or mount.get("destination") not in DOCKER_MOUNTS:
            continue
        source = str(mount.get("source", ""))
        if end in source and os.path.dirname(source).endswith(end):
            return _name_in(f"{os.path.dirname(source)}/config.v2.json")
    return ""


def _name_in(path: str) -> str:
    """The name in docker's file about a container. The path came by the spec, so it may be anything."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_uid != 0 or status.st_size > MAX_BYTES:
                return ""
            name = json.loads(file.read(MAX_BYTES)).get("Name", "")
    except (OSError, ValueError, AttributeError, RecursionError):
        return ""
    return name.removeprefix("/") if isinstance(name, str) else ""
