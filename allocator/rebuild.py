"""Grants whose rows are lost, and that have no note (notes.py): found again by who lives with their pages.

A container that runs has its policy page mounted, which the kernel tells of every process (mountinfo); a process that
`gpuportion exec` gave a portion has our library mapped by a path of its own; and who accounts in a ledger holds a
lock on it. Whoever is found so has an active grant, as large as its page says. Pages with which nobody lives were a
reservation's, or their container has ended.

What row and note alone knew is lost: whose a container is (user, as an annotation said), what it asked for, and the
id where its cgroup is not called by it. It changes rows of `ps` and totals of users, never a limit. Knows nothing of
the store; makes no change."""

from __future__ import annotations

import logging
import os
import re
import uuid as uuids
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from gpuportion.allocator import cgroups, mountinfo, pages, processes
from gpuportion.allocator.devices import Share
from gpuportion.allocator.grant import Grant
from gpuportion.allocator.lifecycle import State
from gpuportion.allocator.processes import Process

log: Final = logging.getLogger("gpuportiond")

TICKS: Final = os.sysconf("SC_CLK_TCK")
ID: Final = re.compile(r"[0-9a-f]{64}")
"""How engines call containers, somewhere in the name of their cgroup."""


@dataclass(frozen=True, slots=True)
class Found:
    """A grant as it can be known without the store. `holder` is None where only the ledger says that it is used."""

    token: str
    id: str
    name: str
    uid: int
    is_process: bool
    shares: tuple[Share, ...]
    holder: Process | None
    cgroups: tuple[str, ...]


def as_grant(found: Found, kind: str, boot: str, now: float) -> Grant:
    """The active grant of boot `boot` that it is; as old as who lives with it."""
    born = found.holder.start / TICKS if found.holder else now
    return Grant(
        token=found.token,
        boot=boot,
        kind=kind,
        root="",
        id=found.id,
        uid=found.uid,
        shares=found.shares,
        created=born,
        deadline=born,
        name=found.name,
        user=str(found.uid) if found.is_process else "",
        holder=found.holder,
        cgroups=found.cgroups,
        state=State.ACTIVE,
    )


def find(folder: str, private: str, tokens: Collection[str], index: Mapping[str, int]) -> list[Found]:
    """Those of the grants whose pages are in `folder` that somebody lives with. `private`: where `exec` has its
    folders. `index`: NVML's index of each GPU by UUID; one that is not there is numbered by its place."""
    holders = _holders(folder, private)
    found = []
    for token in sorted(tokens):
        if token in holders or pages.holders(f"{folder}/{token}/ledger/ledger"):
            grant = _grant(folder, token, holders.get(token), os.path.isdir(f"{private}/{token}"), index)
            found += [grant] if grant else []
    return found


def _grant(
    folder: str, token: str, holder: Process | None, is_process: bool, index: Mapping[str, int]
) -> Found | None:
    try:
        policy = pages.read_policy(f"{folder}/{token}/policy")
    except (OSError, pages.BadPageError) as problem:
        log.error("a container lives with the pages of %s, but they can't be read: %s", token[:8], problem)
        return None
    shares = []
    for place, gpu in enumerate(policy.gpus):
        uuid = f"GPU-{uuids.UUID(bytes=gpu.uuid)}"  # as NVML writes it
        shares.append(Share(uuid, index.get(uuid, place), gpu.limit, context=gpu.context))
    pid = holder.pid if holder else 0
    folders = cgroups.own_folders(pid, processes.parent_of(pid)) if holder and not is_process else ()
    id = f"pid-{pid}" if is_process else _id(folders)
    return Found(
        token=token,
        id=id or policy.container,
        name="" if id.startswith(policy.container) else policy.container,
        uid=processes.uid_of(pid) if is_process else 0,
        is_process=is_process,
        shares=tuple(shares),
        holder=holder,
        cgroups=folders,
    )


def _id(folders: tuple[str, ...]) -> str:
    """The container's id, as its cgroup is called by it."""
    name = os.path.basename(folders[0]) if folders else ""
    found = ID.search(name)
    return found.group() if found else name


# Who lives with which pages


def _holders(folder: str, private: str) -> dict[str, Process]:
    """The oldest process that lives with the pages of each token."""
    found: dict[str, Process] = {}
    mounted = _Mounted(folder)
    for pid in processes.all_pids():
        process = processes.of_pid(pid)
        for token in {*mounted.tokens(pid), *_mapped(pid, private)} if process else ():
            if process and (token not in found or process.start < found[token].start):
                found[token] = process
    return found


class _Mounted:
    """Tokens by mount namespace: processes of a container share one, so each is read once."""

    def __init__(self, folder: str) -> None:
        self._where = mountinfo.where(_mounts("self"), os.path.realpath(folder))
        self._known: dict[int, set[str]] = {}

    def tokens(self, pid: int) -> set[str]:
        try:
            namespace = os.stat(f"/proc/{pid}/ns/mnt").st_ino
            if namespace not in self._known:
                self._known[namespace] = set(mountinfo.tokens_of(_mounts(str(pid)), self._where))
            return self._known[namespace]
        except OSError:
            return set()


def _mounts(pid: str) -> str:
    with open(f"/proc/{pid}/mountinfo", errors="surrogateescape", newline="\n") as file:
        return file.read()


def _mapped(pid: int, private: str) -> set[str]:
    """Tokens whose private folder a process has a file of in its memory."""
    try:
        with open(f"/proc/{pid}/maps", errors="replace") as file:
            return set(re.findall(rf"{re.escape(private)}/({mountinfo.TOKEN.pattern})/", file.read()))
    except OSError:
        return set()
