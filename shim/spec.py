"""The edit of an OCI spec: a plain dict in, a plain dict out, unknown keys kept, the input left alone.

First what NVIDIA's tools put in goes (`strip.py`), then the grant is put in: the driver (`driver.py`), the files of the
grant, and our own hooks. Where our libraries hold the container to it they stand in the place of libcuda and NVML,
with our own folder, and a driver that the image brings itself is covered; where the GPU itself does (MIG), the driver
is left as it is. Nothing is read and nothing decided here: an Injection has every host path and number. No path of
the image ever becomes the source of a mount.
"""

from __future__ import annotations

import dataclasses
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from gpuportion import paths
from gpuportion.errors import GpuportionError
from gpuportion.shim import driver, image_drivers, strip
from gpuportion.shim.preload import preload_text, preload_variable

__all__ = ["Edited", "Injection", "Interposer", "change", "edit", "in_user_namespace", "preload_text"]

LEDGER: Final = ("rw", "nosuid", "nodev", "noexec", "rbind", "rprivate")


@dataclass(frozen=True, slots=True)
class Interposer:
    """The files of one grant by which our libraries hold it. `image_drivers`: what the image has of a driver itself;
    `image_mounts`: where destinations of the spec's mounts lead in it, which lead elsewhere by links."""

    policy: str
    ledger: str
    preload: str
    image_drivers: tuple[image_drivers.Found, ...] = ()
    image_mounts: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Injection:
    """What one grant puts into a spec. Every path but those of mounts' destinations is a host path.

    What to take out: `cdi_paths`, `cdi.targets` of every GPU spec, and `driver_majors`, `strip.majors` of
    /proc/devices. `hooks`: `hooks.stages.entries`. `interposer`: None where `driver` has no libraries.
    `displaced`: targets of the driver's mounts that can't be made, in volumes that are read-only.
    """

    driver: driver.Driver
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
    """The spec of a container that gets the grant. GpuportionError GP304: it can't be made."""
    return change(spec, injection).spec


def change(spec: Mapping[str, Any], injection: Injection) -> Edited:
    """`edit`, together with what it took out. The result shares what it can with `spec` and `injection`."""
    removed = strip.Removed()
    edited = dict(spec)
    linux = _object(spec, "linux")
    mapped = in_user_namespace(linux)
    edited["process"] = _process(_object(spec, "process"), injection, removed)
    edited["mounts"] = _mounts(_list(spec, "mounts"), injection, removed)
    if mapped:
        edited["mounts"] += injection.driver.node_mounts
    edited["hooks"] = _hooks(_object(spec, "hooks"), injection, removed)
    edited["linux"] = _linux(linux, injection, removed, () if mapped else injection.driver.nodes)
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
    if not isinstance(found, list) or not {*map(type, found)} <= {kind}:
        raise GpuportionError("GP304", why=f"{name} of the container's config.json is not a list of such")
    return found


def _process(process: Mapping[str, Any], injection: Injection, removed: strip.Removed) -> dict[str, Any]:
    env = strip.env(_list(process, "env", str), removed)
    ours = dict(injection.driver.env)
    if injection.interposer is not None:
        ours["LD_PRELOAD"] = f"LD_PRELOAD={preload_variable(_value(env, 'LD_PRELOAD'))}"
    for name, entry in ours.items():
        env.pop(name, None)
        env[name] = entry
    if injection.displaced:
        # An empty one adds no place: to the loader it would be the working directory.
        places = [place for place in (_value(env, "LD_LIBRARY_PATH"), paths.INSIDE_LIB) if place]
        env["LD_LIBRARY_PATH"] = f"LD_LIBRARY_PATH={':'.join(places)}"
    edited = {**process, "env": list(env.values())}
    if injection.driver.edits.gids:
        user = _object(process, "user")
        gids = dict.fromkeys([*_list(user, "additionalGids", int), *injection.driver.edits.gids])
        edited["user"] = {**user, "additionalGids": list(gids)}
    return edited


def _value(env: Mapping[str, str], name: str) -> str:
    """Of a variable among entries `NAME=value`; "" where there is none."""
    entry = env.get(name)
    return entry.partition("=")[2] if entry else ""


def _linux(
    linux: Mapping[str, Any], injection: Injection, removed: strip.Removed, made: Sequence[Any]
) -> dict[str, Any]:
    resources = _object(linux, "resources")
    nodes, gone = strip.devices(
        _list(linux, "devices"), injection.driver_majors, injection.cdi_paths, removed
    )
    rules = strip.rules(_list(resources, "devices"), injection.driver_majors, gone, removed)
    allowed, majors = injection.driver.rules, injection.driver.majors
    # The last rule that matches decides, and the list begins with "deny all": ours go to its end.
    rules = [rule for rule in rules if rule.get("major") not in majors or rule not in allowed]
    rules += allowed
    return {**linux, "devices": [*nodes, *made], "resources": {**resources, "devices": rules}}


def in_user_namespace(linux: Mapping[str, Any]) -> bool:
    """Where no device node can be made: runc would mount the host's of the same path, wherever ours lies there."""
    return any(namespace.get("type") == "user" for namespace in _list(linux, "namespaces"))


def _mounts(given: Sequence[Any], injection: Injection, removed: strip.Removed) -> list[Any]:
    """Ours last: of two mounts at one place the last wins, so a user's can't cover ours."""
    made, own, displaced = injection.driver, injection.interposer, injection.displaced
    stay = strip.mounts(given, injection.cdi_paths, removed)
    in_place: Sequence[Any] = made.mounts
    moved: Sequence[Any] = ()
    if displaced:
        in_place = [each for each in made.mounts if each["destination"] not in displaced]
        moved = driver.moved(made, displaced)
    if own is None:
        return [*stay, *in_place, *([driver.folder()] if displaced else ()), *moved]
    covers = _over_the_images(stay, made, own) if own.image_drivers else ()
    files = (
        driver.bind(own.policy, paths.INSIDE_POLICY),
        driver.bind(own.preload, paths.INSIDE_PRELOAD),
        driver.bind(own.ledger, paths.INSIDE_LEDGER, LEDGER),
    )
    return [*stay, *in_place, *covers, *made.folder, *files, *moved]


def _over_the_images(
    stay: Sequence[Any], made: driver.Driver, interposer: Interposer
) -> list[dict[str, Any]]:
    assert made.libraries is not None
    ours = image_drivers.Ours(cuda=made.libraries.cuda, nvml=made.libraries.nvml)
    given = [str(mount.get("destination")) for mount in stay]
    linked = [interposer.image_mounts[place] for place in given if place in interposer.image_mounts]
    places = [*map(posixpath.normpath, given), *linked]
    covers = image_drivers.covers(interposer.image_drivers, made.edits, ours, places)
    return [driver.bind(source, target) for target, source in covers.items()]


def _hooks(given: Mapping[str, Any], injection: Injection, removed: strip.Removed) -> dict[str, Any]:
    """Ours first in its stage: a refused confirm comes before the effects of other hooks."""
    ours = frozenset([posixpath.basename(str(entry["path"])) for entry in injection.hooks.values()])
    edited = strip.hooks({stage: _list(given, stage) for stage in given}, ours, removed)
    for stage, hook in injection.driver.hooks:
        if not (injection.displaced and driver.LINKS in hook["args"]):
            edited.setdefault(stage, []).append(hook)
    for stage, entry in injection.hooks.items():
        edited[stage] = [dict(entry), *edited.get(stage, ())]
    return edited
