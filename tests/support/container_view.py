"""What a running container really has, read from the host: device nodes, cgroup rules, mounts, hooks, environment.

Two containers of the same command can be compared: ids, tokens and numbers that differ from one to the next are
replaced by words. Knows no engine: a pid and the config.json that the low-level runtime got are enough.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

KEEPER: Final = """#!/bin/sh
# Keeps the config.json of each container as {next} gets it.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
b=; id=
for a; do [ "$b" = next ] && b=$a; [ "$a" = --bundle ] && b=next; id=$a; done
case " $* " in *" create "*) cp "$b/config.json" {kept}/"$id";; esac
exec {next} "$@"
"""
DIFFERING: Final = (
    (re.compile(r"\b[0-9a-f]{64}\b"), "ID"),
    (re.compile(r"\b[0-9a-f]{32}\b"), "TOKEN"),
    (re.compile(r"\b[0-9a-f]{12}\b"), "SHORT"),
    (re.compile(r"\bgpuportion-test-[0-9-]+\b"), "NAME"),
)
OF_LAYERS: Final = re.compile(r"^(lower|upper|work)dir=|^index=|^nouserxattr|^xino=")


@dataclass(frozen=True, slots=True)
class View:
    """Sorted lines, one a thing, so that a second one of the same is seen as well."""

    nodes: list[str]
    rules: list[str]
    mounts: list[str]
    hooks: list[str]
    env: list[str]

    def beyond(self, other: View) -> dict[str, list[str]]:
        """What this has and the other has not, or has fewer times."""
        return {
            part.name: extra
            for part in fields(View)
            if (extra := _minus(getattr(self, part.name), getattr(other, part.name)))
        }


def _minus(some: Sequence[str], others: Sequence[str]) -> list[str]:
    left = list(others)
    extra = []
    for line in some:
        if line in left:
            left.remove(line)
        else:
            extra.append(line)
    return extra


def keeper(path: Path, runtime: str, kept: Path) -> str:
    """A low-level runtime that keeps what it gets, and is `runtime` else."""
    path.write_text(KEEPER.format(next=shlex.quote(runtime), kept=shlex.quote(str(kept))))
    path.chmod(0o755)
    return str(path)


def view(pid: int, config: Path) -> View:
    """Of the container whose first process is `pid`."""
    spec = json.loads(config.read_text())
    return View(
        nodes=sorted(_nodes(Path(f"/proc/{pid}/root/dev"))),
        rules=sorted(_rules(pid, spec)),
        mounts=sorted(_mounts(Path(f"/proc/{pid}/mountinfo").read_text())),
        hooks=sorted(_hooks(spec.get("hooks") or {})),
        env=sorted(_plain(entry) for entry in spec["process"]["env"]),
    )


def _nodes(dev: Path) -> list[str]:
    found = []
    for folder, names, files in os.walk(dev):
        if Path(folder) == dev:
            names[:] = [name for name in names if name not in ("pts", "mqueue", "shm")]
        for name in files:
            status = os.lstat(f"{folder}/{name}")
            if stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
                kind = "c" if stat.S_ISCHR(status.st_mode) else "b"
                numbers = f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
                found.append(f"/dev{folder.removeprefix(str(dev))}/{name} {kind} {numbers}")
    return found


def _rules(pid: int, spec: Mapping[str, Any]) -> list[str]:
    """The kernel's own list where cgroup v1 has one, beside what the spec says (all that v2 lets one read)."""
    rules = [f"spec {json.dumps(rule, sort_keys=True)}" for rule in spec["linux"]["resources"]["devices"]]
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "devices":
            listed = Path(f"/sys/fs/cgroup/devices{path}/devices.list").read_text()
            rules += [f"kernel {rule}" for rule in listed.splitlines()]
    return rules


def _mounts(mountinfo: str) -> list[str]:
    """Target, type, options, and what of which file system, less its numbers and an image's layers."""
    lines = []
    for line in mountinfo.splitlines():
        before, after = line.split(" - ")
        _, _, _, root, target, options = before.split()[:6]
        kind, source, more = after.split()
        own = ",".join(option for option in more.split(",") if not OF_LAYERS.search(option))
        lines.append(_plain(f"{target} {kind} {options} {source} {own} {root}"))
    return lines


def _hooks(hooks: Mapping[str, Any]) -> list[str]:
    return [
        _plain(f"{stage} {json.dumps(hook, sort_keys=True)}")
        for stage, entries in hooks.items()
        for hook in entries or ()
    ]


def _plain(text: str) -> str:
    for pattern, word in DIFFERING:
        text = pattern.sub(word, text)
    return text
