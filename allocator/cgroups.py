"""A container's cgroup: which it is, and whether anybody is left in it. cgroup v1, v2 and both at once.

A grant ends when its container's cgroup is empty or gone. With `--pid=host` processes outlive the container's
init, and whoever joined by `docker exec` is in the cgroup as well, so no single process tells it.

    v1: a folder of each hierarchy; cgroup.procs of it and of all below
    v2: cgroup.events of one folder, `populated 0`, all below included

Paths come from /proc/PID/cgroup and are of the daemon's cgroup namespace. Knows nothing of grants.
"""

from __future__ import annotations

import errno
import functools
import os
from collections.abc import Iterable
from typing import Final

from gpuportion.allocator.processes import read_proc

PREFERRED: Final = ("pids", "memory", "devices", "freezer", "name=systemd")
"""v1 hierarchies to look at, the best first: those that container runtimes always join."""

ENOUGH: Final = 2
"""v1 hierarchies that are recorded. One would do; a process moved out of one of them by hand is in the
other."""

DEPTH: Final = 64
"""Folders below each other that are looked at; a container may make them, so there is an end to it."""


@functools.lru_cache(maxsize=1)
def mounts() -> dict[str, str]:
    """Mount point of each v1 hierarchy by name, and of v2 under the name ""."""
    found: dict[str, str] = {}
    with open("/proc/self/mountinfo") as file:
        for line in file:
            left, _, right = line.partition(" - ")
            kind, _, options = right.split(" ", 2)
            if kind == "cgroup2":
                found.setdefault("", left.split()[4])
            elif kind == "cgroup":
                for name in options.strip().split(","):
                    found.setdefault(name, left.split()[4])
    return found


def membership(pid: int) -> dict[str, str]:
    """Path of process `pid` in each v1 hierarchy by name, and in v2 under ""; empty: it is gone."""
    return _paths(_lines(pid))


def parse(text: str) -> dict[str, str]:
    """A file /proc/PID/cgroup: lines "number:names:path", of which the path can hold colons, and all that Python takes
    for the end of a line but a newline. A last line that was cut off says nothing."""
    return _paths(_whole_lines(text))


def _lines(pid: int) -> list[str]:
    try:
        return _whole_lines(os.fsdecode(read_proc(f"/proc/{pid}/cgroup")))
    except OSError:
        return []


def _whole_lines(text: str) -> list[str]:
    return text.split("\n")[:-1]


def _paths(lines: Iterable[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in lines:
        _, names, path = line.split(":", 2)
        for name in names.split(","):
            found[name] = path
    return found


def own_folders(pid: int, beside: int) -> tuple[str, ...]:
    """Folders of the cgroups that process `pid` has for itself: not the root's, nor `beside`'s.

    `beside` is the process that made the container, 0 if it cannot be seen. Empty: it has none
    (`podman --cgroups=disabled`), so cgroups cannot tell when it ends.
    """
    mine, shared = _lines(pid), _lines(beside)
    if mine == shared:
        return ()
    own = _paths(line for line in mine if line not in shared)
    mounted = mounts()
    names = [name for name in ("", *PREFERRED) if own.get(name, "/") != "/" and name in mounted]
    return tuple(mounted[name] + own[name] for name in names[:ENOUGH])


def is_populated(folder: str) -> bool:
    """Is a process in this cgroup or in one below it? What cannot be read for a reason other than being gone
    counts as populated: a grant ends too late rather than too early."""
    try:
        return b"populated 0" not in read_proc(f"{folder}/cgroup.events")
    except FileNotFoundError:
        return _has_members(folder)
    except OSError as problem:
        return not _is_gone(problem)


def _has_members(folder: str, depth: int = 0) -> bool:
    """The folder, and all below it; below one that is gone there is none."""
    try:
        if read_proc(f"{folder}/cgroup.procs"):
            return True
        with os.scandir(folder) as entries:
            below = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError as problem:
        return not _is_gone(problem)
    return depth < DEPTH and any(_has_members(each, depth + 1) for each in below)


def _is_gone(problem: OSError) -> bool:
    return problem.errno in (errno.ENOENT, errno.ENODEV)


def belongs(membership_of: dict[str, str], folders: tuple[str, ...]) -> bool:
    """Is a process with this membership in one of the folders, or below it?"""
    for name, path in membership_of.items():
        mount = mounts().get(name)
        if mount is not None and any(f"{mount}{path}/".startswith(f"{folder}/") for folder in folders):
            return True
    return False
