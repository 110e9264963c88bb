"""The edit of an OCI spec: a plain dict in, a plain dict out, unknown keys kept, the input left alone.

First what NVIDIA's tools put in goes (`strip.py`), then the grant is put in: device nodes and their cgroup
rules, the driver's files, hooks and environment from the CDI spec, and our own hooks. Where our libraries hold
the container to it they stand in the place of libcuda and NVML, with our own folder, and a driver that the image
brings itself is covered; where the GPU itself does (MIG), the driver is left as it is. Nothing is read and nothing
decided here: an Injection has every host path and number. No path of the image ever becomes the source of a mount.
"""

from __future__ import annotations

import dataclasses
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from gpuportion import paths
from gpuportion.errors import GpuportionError
from gpuportion.shim import cdi, image_drivers, strip
from gpuportion.shim.preload import preload_text, preload_variable

__all__ = ["Edited", "Injection", "Interposer", "change", "edit", "in_user_namespace", "preload_text"]

READ_ONLY: Final = ("ro", "nosuid", "nodev", "rbind", "rprivate")
LEDGER: Final = ("rw", "nosuid", "nodev", "noexec", "rbind", "rprivate")
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


@dataclass(frozen=True, slots=True)
class Interposer:
    """Our libraries, and the files of one grant by which they hold it. `image_drivers`: what the image has of a
    driver itself; `image_mounts`: where destinations of the spec's mounts lead in it, which lead elsewhere by links."""

    library: str
    nvml_library: str
    alias: str
    policy: str
    ledger: str
    preload: str
    image_drivers: tuple[image_drivers.Found, ...] = ()
    image_mounts: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Injection:
    """What one grant puts into a spec. Every path but those of `edits` targets is a host path.

    `device_numbers`: host path of each device node of `edits` -> (type, major, minor), for nodes of which CDI
    does not say. What to take out: `cdi_paths`, `cdi.targets` of every GPU spec, and `driver_majors`,
    `strip.majors` of /proc/devices. `hooks`: `hooks.stages.entries`. `interposer`: None where the GPU itself holds
    the container to its grant. `displaced`: targets of `edits` that can't be made, in volumes that are read-only.
    """

    edits: cdi.ContainerEdits
    device_numbers: Mapping[str, tuple[str, int, int]]
    hooks: Mapping[str, Mapping[str, Any]]
    interposer: Interposer | None
    cdi_paths: frozenset[str] = frozenset()
    driver_majors: frozenset[int] = frozenset({strip.NVIDIA_MAJOR})
    displaced: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Edited:
    """`removed`: what was in the spec and went, in words for the log."""

    spec: dict[str, Any]
    removed: tuple[str, ...] = field(default=())


def edit(spec: Mapping[str, Any], injection: Injection) -> dict[str, Any]:
    """The spec of a container that gets the grant. GpuportionError GP302, 304: it can't be made."""
    return change(spec, injection).spec


def change(spec: Mapping[str, Any], injection: Injection) -> Edited:
    """`edit`, together with what it took out."""
    removed = strip.Removed()
    edited = dict(spec)
    edited["process"] = _process(_object(spec, "process"), injection, removed)
    edited["mounts"] = _mounts(_list(spec, "mounts"), injection, removed)
    if in_user_namespace(_object(spec, "linux")):
        edited["mounts"] += [
            _bind(node.host_path, node.path, DEVICE) for node in injection.edits.device_nodes
        ]
    edited["hooks"] = _hooks(_object(spec, "hooks"), injection, removed)
    edited["linux"] = _linux(_object(spec, "linux"), injection, removed)
    return Edited(edited, tuple(removed))


def _object(of: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = of.get(name)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise GpuportionError("GP304", why=f"{name} of the container's config.json is not an object")
    return found


def _list(of: Mapping[str, Any], name: str, kind: type = dict) -> Sequence[Any]:
    found = of.get(name)
    if found is None:
        return ()
    if not isinstance(found, list) or not all(isinstance(each, kind) for each in found):
        raise GpuportionError("GP304", why=f"{name} of the container's config.json is not a list of such")
    return found


def _process(process: Mapping[str, Any], injection: Injection, removed: strip.Removed) -> dict[str, Any]:
    env = strip.env(_list(process, "env", str), removed)
    ours = [*injection.edits.env, VISIBLE]
    if injection.interposer is not None:
        ours.append(f"LD_PRELOAD={preload_variable(_value(env, 'LD_PRELOAD'))}")
    for entry in ours:
        name = entry.partition("=")[0]
        env.pop(name, None)
        env[name] = entry
    if injection.displaced:
        # An empty one adds no place: to the loader it would be the working directory.
        places = [place for place in (_value(env, "LD_LIBRARY_PATH"), paths.INSIDE_LIB) if place]
        env["LD_LIBRARY_PATH"] = f"LD_LIBRARY_PATH={':'.join(places)}"
    edited = {**process, "env": list(env.values())}
    if injection.edits.gids:
        user = _object(process, "user")
        gids = dict.fromkeys([*_list(user, "additionalGids", int), *injection.edits.gids])
        edited["user"] = {**user, "additionalGids": list(gids)}
    return edited


def _value(env: Mapping[str, str], name: str) -> str:
    """Of a variable among entries `NAME=value`; "" where there is none."""
    entry = env.get(name)
    return entry.partition("=")[2] if entry else ""


def _linux(linux: Mapping[str, Any], injection: Injection, removed: strip.Removed) -> dict[str, Any]:
    resources = _object(linux, "resources")
    nodes, gone = strip.devices(
        _list(linux, "devices"), injection.driver_majors, injection.cdi_paths, removed
    )
    rules = strip.rules(_list(resources, "devices"), injection.driver_majors, gone, removed)
    ours = [_numbered(node, injection.device_numbers) for node in injection.edits.device_nodes]
    made = () if in_user_namespace(linux) else (node for node, _ in ours)
    allowed = [_rule(node, access) for node, access in ours if access != "none"]
    # The last rule that matches decides, and the list begins with "deny all": ours go to its end.
    rules = [*(rule for rule in rules if rule not in allowed), *allowed]
    devices = [*nodes, *made]
    return {**linux, "devices": devices, "resources": {**resources, "devices": rules}}


def in_user_namespace(linux: Mapping[str, Any]) -> bool:
    """Where no device node can be made: runc would mount the host's of the same path, wherever ours lies there."""
    return any(namespace.get("type") == "user" for namespace in _list(linux, "namespaces"))


def _numbered(
    node: cdi.DeviceNode, numbers: Mapping[str, tuple[str, int, int]]
) -> tuple[dict[str, Any], str]:
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


def _rule(node: Mapping[str, Any], access: str) -> dict[str, Any]:
    numbers = {name: node[name] for name in ("type", "major", "minor")}
    return {"allow": True, **numbers, "access": access}


def _mounts(given: Sequence[Any], injection: Injection, removed: strip.Removed) -> list[Any]:
    """Ours last: of two mounts at one place the last wins, so a user's can't cover ours."""
    stay = strip.mounts(given, injection.cdi_paths, removed)
    in_place = [each for each in injection.edits.mounts if each.target not in injection.displaced]
    driver = [_driver_mount(each, injection.interposer) for each in in_place]
    folder = {"destination": paths.INSIDE, "source": "tmpfs", "type": "tmpfs", "options": list(FOLDER)}
    if injection.interposer is None:
        return [*stay, *driver, *([folder] if injection.displaced else ()), *_displaced(injection)]
    return [
        *stay,
        *driver,
        *_over_the_images(stay, injection.edits, injection.interposer),
        folder,
        *_own_mounts(injection.edits, injection.interposer),
        *_displaced(injection),
    ]


def _over_the_images(
    stay: Sequence[Any], edits: cdi.ContainerEdits, interposer: Interposer
) -> list[dict[str, Any]]:
    ours = image_drivers.Ours(cuda=interposer.library, nvml=interposer.nvml_library)
    given = [str(mount.get("destination")) for mount in stay]
    linked = [interposer.image_mounts[place] for place in given if place in interposer.image_mounts]
    places = [*map(posixpath.normpath, given), *linked]
    covers = image_drivers.covers(interposer.image_drivers, edits, ours, places)
    return [_bind(source, target) for target, source in covers.items()]


def _displaced(injection: Injection) -> list[dict[str, Any]]:
    """The driver's files that have no place, in our own folder; of a name the first."""
    moved: dict[str, dict[str, Any]] = {}
    for each in injection.edits.mounts:
        target = f"{paths.INSIDE_LIB}/{posixpath.basename(each.target)}"
        if each.target in injection.displaced and not cdi.OTHER_CLASS.search(each.target):
            there = dataclasses.replace(each, target=target)
            moved.setdefault(target, _driver_mount(there, injection.interposer))
    return list(moved.values())


def _driver_mount(mount: cdi.Mount, interposer: Interposer | None) -> dict[str, Any]:
    """A CDI mount; where we interpose, every libcuda and NVML, by any name, is ours, so that what bypasses a preload
    meets it."""
    name = posixpath.basename(mount.target)
    if interposer is not None and cdi.LIBCUDA.fullmatch(name):
        return _bind(interposer.library, mount.target)
    if interposer is not None and cdi.LIBNVML.fullmatch(name):
        return _bind(interposer.nvml_library, mount.target)
    options = list(mount.options or READ_ONLY)
    if mount.type not in (None, "bind"):
        return {"destination": mount.target, "source": mount.source, "type": mount.type, "options": options}
    if not {"bind", "rbind"} & set(options):
        options.append("rbind")
    return _bind(mount.source, mount.target, options)


def _own_mounts(edits: cdi.ContainerEdits, interposer: Interposer) -> list[dict[str, Any]]:
    libcuda, nvml = cdi.driver_paths(edits)
    binds = (
        (interposer.library, paths.INSIDE_CUDA),
        (interposer.nvml_library, paths.INSIDE_NVML),
        (interposer.alias, paths.INSIDE_ALIAS),
        (libcuda, f"{paths.INSIDE_DRIVER}/libcuda.so.1"),
        (nvml, f"{paths.INSIDE_DRIVER}/libnvidia-ml.so.1"),
        (interposer.policy, paths.INSIDE_POLICY),
        (interposer.preload, paths.INSIDE_PRELOAD),
    )
    ledger = _bind(interposer.ledger, paths.INSIDE_LEDGER, LEDGER)
    return [*(_bind(source, target) for source, target in binds), ledger]


def _bind(source: str, target: str, options: Sequence[str] = READ_ONLY) -> dict[str, Any]:
    return {"destination": target, "source": source, "type": "bind", "options": list(options)}


def _hooks(given: Mapping[str, Any], injection: Injection, removed: strip.Removed) -> dict[str, Any]:
    """Ours first in its stage: a refused confirm comes before the effects of other hooks."""
    ours = frozenset(posixpath.basename(str(entry["path"])) for entry in injection.hooks.values())
    edited = strip.hooks({stage: _list(given, stage) for stage in given}, ours, removed)
    for hook in injection.edits.hooks:
        covered = injection.interposer is not None and COMPAT in hook.args
        if covered or (injection.displaced and LINKS in hook.args):
            continue
        edited.setdefault(hook.stage, []).append(_cdi_hook(hook))
    for stage, entry in injection.hooks.items():
        edited[stage] = [dict(entry), *edited.get(stage, ())]
    return edited


def _cdi_hook(hook: cdi.Hook) -> dict[str, Any]:
    entry: dict[str, Any] = {"path": hook.path, "args": list(hook.args) or [hook.path]}
    entry["env"] = list(hook.env or HOOK_ENV)
    if hook.timeout is not None:
        entry["timeout"] = hook.timeout
    return entry
