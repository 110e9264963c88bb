"""Whether a process lives in a container, and in which: by the cgroups that container engines make, and by its pid
namespace.

    a cgroup of an engine's     ENGINES below; the innermost counts, in any hierarchy. The container that the daemon
                                itself runs in is none: what else is in it is the daemon's neighbour, as on a host
    another pid namespace       than the daemon's: plain runc, systemd-nspawn, sandboxes

A process with neither is the host's. So is one of a container with the host's pid namespace whose cgroup was named by
hand: nothing tells it from a service. Pure: knows nothing of /proc or grants."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

HEX: Final = r"(?P<id>[0-9a-f]{64})"
NAME: Final = r"(?P<id>[^/]+)"

ENGINES: Final = tuple(
    (engine, re.compile(pattern))
    for engine, pattern in (
        # (engine, what begins a folder of a cgroup path), the more exact ones first
        ("docker", rf"docker[-/]{HEX}"),
        ("docker", rf"docker/buildkit/{NAME}"),
        ("containerd", rf"cri-containerd[-:]{HEX}"),
        ("containerd", rf"nerdctl-{HEX}"),
        ("podman", rf"libpod-(payload-)?{HEX}"),
        ("cri-o", rf"crio[-:]{HEX}"),
        ("kubernetes", rf"kubepods(\.slice)?/(?:[^/]+/)*pod[^/]+/(?:[a-z-]+-)?{HEX}"),
        ("kubernetes", rf"kubepods[^/]*:[a-z-]+:{HEX}"),
        ("garden", rf"garden/{NAME}"),
        ("ecs", rf"ecs/(?:[^/]+/)?{NAME}"),
        ("lxc", rf"lxc/{NAME}"),
        ("lxc", rf"lxc\.payload[./]{NAME}"),
        ("container", rf"{HEX}(?=/|$)"),  # containerd's own way to name one: /<namespace>/<id>
    )
)


@dataclass(frozen=True, slots=True)
class Container:
    """`engine` is a name of ENGINES, or "namespace" for a pid namespace alone; `id` as the cgroup has it, or ""."""

    engine: str
    id: str = ""

    @property
    def label(self) -> str:
        """How messages call it."""
        return f"container {self.id[:12]} ({self.engine})" if self.id else "a pid namespace of its own"


def container_of(
    places: Mapping[str, str], pid_namespace: int, own_places: Mapping[str, str], own_pid_namespace: int
) -> Container | None:
    """The container of a process with the cgroups `places` (paths by hierarchy); `own_*` are the daemon's. None: it is
    the host's, or too little is known of it (a namespace of 0) to say that it is not."""
    own = {innermost(path) for path in own_places.values()}
    found = next((one for one in _innermosts(places.values()) if one not in own), None)
    if found is None and 0 != pid_namespace != own_pid_namespace != 0:
        return Container("namespace")
    return found


def _innermosts(paths: Iterable[str]) -> Iterable[Container]:
    return (found for found in map(innermost, paths) if found is not None)


def innermost(path: str) -> Container | None:
    """The container that a cgroup path names; of one within another, the inner one."""
    starts = [slash.end() for slash in re.finditer("/", path)]
    matches = [(engine, pattern.match(path, at)) for engine, pattern in ENGINES for at in starts]
    found = [(match.end("id"), engine, match["id"]) for engine, match in matches if match]
    if not found:
        return None
    _, engine, id = max(found, key=lambda one: one[0])  # of equals the first, so the more exact pattern
    return Container(engine, id)
