"""What `gpuportion doctor` says of each container engine of this node: does it know our runtime, was its version run,
what becomes of a container that names no runtime. It reads the engines' files and changes nothing.

An engine that doesn't know us is a problem only where no other one does: docker brings a containerd along that
nobody may want to ask.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from gpuportion.cli import built
from gpuportion.cli.finding import Finding, program
from gpuportion.errors import GpuportionError
from gpuportion.shim.engines import installation
from gpuportion.shim.engines.installation import RUNTIME
from gpuportion.shim.engines.table import ENGINES, Engine

NVIDIA: Final = "nvidia-container-runtime"
VARIABLE: Final = "GPUPORTION_RUNTIME"
PROCESSES: Final = {"docker": ("dockerd", "containerd"), "containerd": ("containerd",), "crio": ("crio",)}
"""Whose environment our launcher has. podman's own is not handed on."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What was read of an engine. `registered`: None, "outdated" or "yes"; `trouble`: its files can't be used."""

    version: str
    registered: str | None = None
    default: tuple[str, str] = ("", "")
    trouble: str = ""
    becomes: str = ""


def findings() -> list[Finding]:
    there = [name for name, engine in ENGINES.items() if program(engine.program)]
    if not there:
        return [Finding("engines", True, "none on this machine; gpuportion exec needs none", "")]
    seen = {name: _look(name, ENGINES[name]) for name in there}
    some = any(one.registered for one in seen.values())
    return [_finding(name, ENGINES[name], one, some) for name, one in seen.items()]


def _look(name: str, engine: Engine) -> Seen:
    version = _version(engine.program)
    try:
        return Seen(version, _registered(name, engine), engine.default(engine.config), becomes=_becomes(name))
    except GpuportionError as refusal:
        return Seen(version, trouble=refusal.text)
    except OSError as problem:
        return Seen(
            version, trouble=f"{problem.filename or engine.config} cannot be read: {problem.strerror}"
        )


def _registered(name: str, engine: Engine) -> str | None:
    """By what installing and taking out would change."""
    ours = built.path(built.RUNTIME)
    for default in (False, True):
        plan = installation.plan_install(name, engine.edits(engine.config, ours, default))
        if not any(change.diff for change in plan):
            return "yes"
    plan = installation.plan_uninstall(name, engine.edits(engine.config, "", False))
    return "outdated" if any(change.diff for change in plan) else None


def _finding(name: str, engine: Engine, seen: Seen, some: bool) -> Finding:
    if seen.trouble:
        return Finding(name, some, f"{_of_version(engine, seen)}; {seen.trouble}", "")
    text = f"{_of_version(engine, seen)}; {engine.config} "
    install = f"gpuportion install --engine {name}"
    steps = list(_steps(engine, seen, install))
    if seen.registered is None:
        return Finding(name, some, f"{text}does not name our runtime", "\n".join([install, *steps]))
    if seen.registered == "outdated":
        return Finding(name, False, f"{text}says of our runtime what does not hold now", install)
    return Finding(name, not _is_nvidia(seen.becomes), f"{text}names our runtime", "\n".join(steps))


def _steps(engine: Engine, seen: Seen, install: str) -> Iterator[str]:
    name, path = seen.default
    if _is_nvidia(seen.becomes):
        yield f"{VARIABLE}={seen.becomes} in its environment is refused (GP310): name runc or crun there"
    if name != RUNTIME and (_is_nvidia(path) or name.startswith("nvidia")):
        yield (
            f"its default runtime {name} hands whole GPUs to containers that ask for no portion; if that is not "
            f"meant: {install} --set-as-default"
        )
    if engine.run and seen.version and _number(seen.version) < _number(engine.run[0]):
        yield f"{engine.run[0]} is the oldest that was run: upgrade it"


def _of_version(engine: Engine, seen: Seen) -> str:
    if not seen.version:
        return f"{engine.program} does not say its version"
    if any(_number(seen.version)[:2] == _number(run) for run in engine.run):
        return f"{seen.version}, a version that was run"
    known = f"run were {', '.join(engine.run)}" if engine.run else "no version was run"
    return f"{seen.version} ({known})"


def _version(name: str) -> str:
    """As it says itself; "": it doesn't."""
    try:
        done = subprocess.run(
            [program(name) or name, "--version"], capture_output=True, text=True, check=False, timeout=30
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    found = re.search(r"(?<![\w.])v?(\d+\.\d+(\.\d+)?)", done.stdout)
    return found[1] if found else ""


def _number(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def _is_nvidia(path: str) -> bool:
    names = (os.path.basename(path), os.path.basename(os.path.realpath(path)))
    return bool(path) and any(name.startswith(NVIDIA) for name in names)


def _becomes(name: str) -> str:
    """What the engine's processes say our launcher becomes, the worst first; "": nothing.

    Only of root's processes, outside of containers. It is never started: they may be no engines at all."""
    said = []
    for folder in _processes(PROCESSES.get(name, ())):
        try:
            with open(f"{folder}/environ", "rb") as file:
                entries = file.read().split(b"\0")
        except OSError:
            continue
        for entry in entries:
            variable, _, value = entry.partition(b"=")
            if variable == VARIABLE.encode() and value:
                said.append(os.fsdecode(value))
    return max(said, key=_is_nvidia, default="")


def _processes(names: Sequence[str]) -> Iterator[str]:
    """Folders in /proc of the processes of these names that have our root folder and are root's."""
    for entry in os.listdir("/proc"):
        folder = f"/proc/{entry}"
        try:
            with open(f"{folder}/comm", encoding="utf-8", errors="replace") as file:
                named = file.read().strip() in names
            if named and os.stat(folder).st_uid == 0 and os.path.samefile(f"{folder}/root", "/"):
                yield folder
        except OSError:  # it ended, or it isn't for us to see
            continue
