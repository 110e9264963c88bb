"""What the edits of a CDI spec become in an OCI spec: worked out once, put into the spec of every container.

Device nodes and their cgroup rules, mounts, environment and hooks, with our libraries in the place of libcuda and NVML
where they hold a container to its grant. Nothing here is of one container or grant. The specs of all share these parts,
so nobody changes one. Pure.
"""

from __future__ import annotations

import dataclasses
import posixpath
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from gpuportion import paths
from gpuportion.errors import GpuportionError
from gpuportion.shim import cdi

READ_ONLY: Final = ("ro", "nosuid", "nodev", "rbind", "rprivate")
DEVICE: Final = ("rw", "nosuid", "noexec", "rbind", "rprivate")
FOLDER: Final = ("ro", "nosuid", "nodev", "noexec", "mode=755", "size=64k")
"""Our folder is a mount of its own: the image's layer stays clean, and it can't be moved away or swapped."""
HOOK_ENV: Final = ("PATH=/usr/sbin:/usr/bin:/sbin:/bin",)
"""For a CDI hook that brings no environment: an absent one is inherited, in old runc from the image."""
COMPAT: Final = "enable-cuda-compat"
"""NVIDIA's hook that puts a newer driver of the image first in ld.so.cache. The host's serves under a grant, and would
find the compilers of that other one there."""
LINKS: Final = "create-symlinks"
"""NVIDIA's hook that makes links beside the driver's files: where these have no place, links have none either."""
VISIBLE: Final = "NVIDIA_VISIBLE_DEVICES=void"
DEFAULT_MODE: Final = 0o666
"""Of a device node, as the driver makes its own: any user of the container may use the GPU."""

Entry = dict[str, Any]
Numbers = Mapping[str, tuple[str, int, int]]


@dataclass(frozen=True, slots=True)
class Libraries:
    """Host paths of ours: our libcuda, our NVML, and our libcuda by its other name."""

    cuda: str
    nvml: str
    alias: str


@dataclass(frozen=True, slots=True, eq=False)
class Driver:
    """The GPUs of a grant and their driver, as parts of an OCI spec. `libraries`: None where the GPU itself holds the
    container to its grant, and the driver is left as it is.

    `env`: name -> entry. `nodes`, `rules`: to be made and let in, `majors`: their numbers; `node_mounts`: instead of
    `nodes`, where none can be made. `mounts`: of the driver's files; `folder`: ours, and what lies in it that is no
    grant's. `hooks`: each with its stage. `above`: every place at which a mount lies over one of the files, or over
    ld.so.preload.
    """

    edits: cdi.ContainerEdits
    libraries: Libraries | None
    env: Mapping[str, str]
    nodes: tuple[Entry, ...]
    rules: tuple[Entry, ...]
    majors: frozenset[int]
    node_mounts: tuple[Entry, ...]
    mounts: tuple[Entry, ...]
    folder: tuple[Entry, ...]
    hooks: tuple[tuple[str, Entry], ...]
    above: frozenset[str]


def driver(edits: cdi.ContainerEdits, numbers: Numbers, libraries: Libraries | None) -> Driver:
    """`numbers`: host path of each device node -> (type, major, minor), for nodes of which CDI does not say.
    GpuportionError GP302: a node has none, or our libraries no driver to call."""
    numbered = [_numbered(node, numbers) for node in edits.device_nodes]
    rules = tuple(_rule(node, access) for node, access in numbered if access != "none")
    return Driver(
        edits=edits,
        libraries=libraries,
        env={entry.partition("=")[0]: entry for entry in (*edits.env, VISIBLE)},
        nodes=tuple(node for node, _ in numbered),
        rules=rules,
        majors=frozenset(rule["major"] for rule in rules),
        node_mounts=tuple(bind(node.host_path, node.path, DEVICE) for node in edits.device_nodes),
        mounts=tuple(_mount(each, libraries) for each in edits.mounts),
        folder=() if libraries is None else (folder(), *_inside(edits, libraries)),
        hooks=tuple(_hooks(edits.hooks, libraries)),
        above=_above([paths.INSIDE_PRELOAD, *(each.target for each in edits.mounts)]),
    )


def bind(source: str, target: str, options: Sequence[str] = READ_ONLY) -> Entry:
    return {"destination": target, "source": source, "type": "bind", "options": list(options)}


def folder() -> Entry:
    """Ours, empty."""
    return {"destination": paths.INSIDE, "source": "tmpfs", "type": "tmpfs", "options": list(FOLDER)}


def moved(driver: Driver, displaced: frozenset[str]) -> list[Entry]:
    """The driver's files that have no place, in our own folder; of a name the first."""
    found: dict[str, Entry] = {}
    for each in driver.edits.mounts:
        target = f"{paths.INSIDE_LIB}/{posixpath.basename(each.target)}"
        if each.target in displaced and not cdi.OTHER_CLASS.search(each.target):
            found.setdefault(target, _mount(dataclasses.replace(each, target=target), driver.libraries))
    return list(found.values())


def _numbered(node: cdi.DeviceNode, numbers: Numbers) -> tuple[Entry, str]:
    """A device node as OCI has it, and its access."""
    kind, major, minor = node.type, node.major, node.minor
    if kind is None or major is None or minor is None:
        if node.host_path not in numbers:
            why = f"the CDI spec names the device {node.host_path}, and this host has none"
            raise GpuportionError("GP302", why=why)
        kind, major, minor = numbers[node.host_path]
    mode = DEFAULT_MODE if node.file_mode is None else node.file_mode
    entry = {"path": node.path, "type": kind, "major": major, "minor": minor, "fileMode": mode}
    owner = {name: value for name, value in (("uid", node.uid), ("gid", node.gid)) if value is not None}
    return {**entry, **owner}, node.permissions


def _rule(node: Mapping[str, Any], access: str) -> Entry:
    numbers = {name: node[name] for name in ("type", "major", "minor")}
    return {"allow": True, **numbers, "access": access}


def _mount(mount: cdi.Mount, libraries: Libraries | None) -> Entry:
    """A CDI mount; where we interpose, every libcuda and NVML, by any name, is ours, so that what bypasses a preload
    meets it."""
    name = posixpath.basename(mount.target)
    if libraries is not None and cdi.LIBCUDA.fullmatch(name):
        return bind(libraries.cuda, mount.target)
    if libraries is not None and cdi.LIBNVML.fullmatch(name):
        return bind(libraries.nvml, mount.target)
    options = list(mount.options or READ_ONLY)
    if mount.type not in (None, "bind"):
        return {"destination": mount.target, "source": mount.source, "type": mount.type, "options": options}
    if not {"bind", "rbind"} & set(options):
        options.append("rbind")
    return bind(mount.source, mount.target, options)


def _inside(edits: cdi.ContainerEdits, libraries: Libraries) -> list[Entry]:
    libcuda, nvml = cdi.driver_paths(edits)
    binds = (
        (libraries.cuda, paths.INSIDE_CUDA),
        (libraries.nvml, paths.INSIDE_NVML),
        (libraries.alias, paths.INSIDE_ALIAS),
        (libcuda, f"{paths.INSIDE_DRIVER}/libcuda.so.1"),
        (nvml, f"{paths.INSIDE_DRIVER}/libnvidia-ml.so.1"),
    )
    return [bind(source, target) for source, target in binds]


def _hooks(hooks: Iterable[cdi.Hook], libraries: Libraries | None) -> Iterable[tuple[str, Entry]]:
    for hook in hooks:
        if libraries is not None and COMPAT in hook.args:
            continue
        entry: Entry = {"path": hook.path, "args": list(hook.args) or [hook.path]}
        entry["env"] = list(hook.env or HOOK_ENV)
        if hook.timeout is not None:
            entry["timeout"] = hook.timeout
        yield hook.stage, entry


def _above(targets: Iterable[str]) -> frozenset[str]:
    """The targets and all folders that they lie in."""
    found: set[str] = set()
    for target in targets:
        place = target
        while place not in found:
            found.add(place)
            place = posixpath.dirname(place)
    return frozenset(found)
