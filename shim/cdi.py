"""CDI specs that are already parsed -> the edits of a container that the named devices need.

The Container Device Interface (cncf-tags/container-device-interface, SPEC.md, versions 0.3 to 1.1) is how the
NVIDIA driver's device nodes, files and hooks are described. Reading files is `allocator/cdi_files.py`'s; what
becomes of the edits is `spec.py`'s. A field that is not known is refused, as the reference implementation
does: what it would have asked for can't be left out silently.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from gpuportion.errors import GpuportionError

GPU_KIND: Final = "nvidia.com/gpu"
VERSIONS: Final = re.compile(r"v?(0\.[3-9]\.\d+|1\.[01]\.\d+)")
LIBCUDA: Final = re.compile(r"libcuda\.so(\.[0-9]+)*")
LIBNVML: Final = re.compile(r"libnvidia-ml\.so(\.[0-9]+)*")
OTHER_CLASS: Final = re.compile(r"/(i[3-6]86-linux-gnu|lib32|libx32)/")
"""Folders of 32-bit libraries: a driver's 32-bit copy is never the one that our library calls."""
ANEW: Final = "Make it anew: nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml"
STAGES: Final = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")


@dataclass(frozen=True, slots=True)
class DeviceNode:
    """`path` in the container, `host_path` on the host, which knows type and numbers left out here."""

    path: str
    host_path: str
    type: str | None = None
    major: int | None = None
    minor: int | None = None
    file_mode: int | None = None
    permissions: str = "rwm"
    uid: int | None = None
    gid: int | None = None


@dataclass(frozen=True, slots=True)
class Mount:
    source: str
    target: str
    options: tuple[str, ...] = ()
    type: str | None = None


@dataclass(frozen=True, slots=True)
class Hook:
    stage: str
    path: str
    args: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    timeout: int | None = None


@dataclass(frozen=True, slots=True)
class ContainerEdits:
    env: tuple[str, ...] = ()
    device_nodes: tuple[DeviceNode, ...] = ()
    mounts: tuple[Mount, ...] = ()
    hooks: tuple[Hook, ...] = ()
    gids: tuple[int, ...] = ()

    def plus(self, other: ContainerEdits) -> ContainerEdits:
        """Both, in this order, each thing once: devices of one GPU repeat what the GPU's spec says."""
        return ContainerEdits(
            env=_once(self.env + other.env),
            device_nodes=_once(self.device_nodes + other.device_nodes),
            mounts=_once(self.mounts + other.mounts),
            hooks=_once(self.hooks + other.hooks),
            gids=_once(self.gids + other.gids),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Spec:
    """One CDI file as it was read once: `source` is its path, `priority` the place of its folder (a higher one wins).

    Two readings are never equal, so that what follows from one can be kept by it."""

    source: str
    kind: str
    devices: Mapping[str, ContainerEdits]
    edits: ContainerEdits = field(default_factory=ContainerEdits)
    priority: int = 0


T = TypeVar("T")


def _once(values: tuple[T, ...]) -> tuple[T, ...]:
    return tuple(dict.fromkeys(values))


class _Reader:
    """Reads one document; every complaint names the file and the place in it."""

    def __init__(self, source: str) -> None:
        self.source = source

    def wrong(self, where: str, why: str) -> GpuportionError:
        return GpuportionError("GP302", why=f"the CDI spec {self.source} is broken: {where} {why}")

    def value(self, of: Mapping[str, Any], name: str, kind: type[T], where: str) -> T | None:
        found = of.get(name)
        if found is None:
            return None
        if not isinstance(found, kind):
            raise self.wrong(f"{where}.{name}", f"is not {_KINDS[kind]}")
        return found

    def number(self, of: Mapping[str, Any], name: str, where: str) -> int | None:
        """Not below 0: OCI takes a major or minor of -1 for every one, so it would let in more than one device."""
        found = self.value(of, name, int, where)
        if found is not None and (isinstance(found, bool) or found < 0):
            raise self.wrong(f"{where}.{name}", f"is not {_KINDS[int]}")
        return found

    def text(self, of: Mapping[str, Any], name: str, where: str) -> str:
        found = self.value(of, name, str, where)
        if not found:
            raise self.wrong(f"{where}.{name}", "is missing")
        if "\0" in found:
            raise self.wrong(f"{where}.{name}", "has a zero byte")
        return found

    def path(self, of: Mapping[str, Any], name: str, where: str) -> str:
        found = self.text(of, name, where)
        if not found.startswith("/"):
            raise self.wrong(f"{where}.{name}", f"is not an absolute path: {found}")
        return posixpath.normpath(found)

    def texts(self, of: Mapping[str, Any], name: str, where: str) -> tuple[str, ...]:
        found = self.value(of, name, list, where) or []
        if not all(isinstance(each, str) and "\0" not in each for each in found):
            raise self.wrong(f"{where}.{name}", "is not a list of texts")
        return tuple(found)

    def known(self, of: object, names: Iterable[str], where: str) -> Mapping[str, Any]:
        if not isinstance(of, dict):
            raise self.wrong(where, "is not an object")
        strange = [str(name) for name in of if name not in names]
        if strange:
            raise self.wrong(f"{where}.{strange[0]}", "is not a field that gpuportion knows")
        return of

    def each(
        self, of: Mapping[str, Any], name: str, where: str, read: Callable[[object, str], T]
    ) -> tuple[T, ...]:
        found = self.value(of, name, list, where) or []
        return tuple(read(one, f"{where}.{name}[{at}]") for at, one in enumerate(found))


_KINDS: Final[Mapping[type, str]] = {str: "a text", int: "a whole number from 0", list: "a list"}
_SPEC: Final = ("cdiVersion", "kind", "annotations", "devices", "containerEdits")
_DEVICE: Final = ("name", "annotations", "containerEdits")
_EDITS: Final = ("env", "deviceNodes", "mounts", "hooks", "additionalGids", "additionalGIDs")
_NODE: Final = ("path", "hostPath", "type", "major", "minor", "fileMode", "permissions", "uid", "gid")
_MOUNT: Final = ("hostPath", "containerPath", "type", "options")
_HOOK: Final = ("hookName", "path", "args", "env", "timeout")


def parse(document: object, source: str, priority: int = 0) -> Spec:
    """A checked Spec of a parsed file. GpuportionError GP302 says which file and which field is wrong."""
    reader = _Reader(source)
    top = reader.known(document, _SPEC, "the file")
    version = reader.text(top, "cdiVersion", "the file")
    if not VERSIONS.fullmatch(version):
        raise reader.wrong("cdiVersion", f"is {version}; gpuportion knows 0.3.0 to 1.1.0")
    kind = reader.text(top, "kind", "the file")
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_.-]*/[A-Za-z][A-Za-z0-9_.-]*", kind):
        raise reader.wrong("kind", f"is not vendor/class: {kind}")
    devices = dict(reader.each(top, "devices", "the file", lambda one, where: _device(reader, one, where)))
    if len(devices) != len(
        top.get("devices") or ()
    ):  # none: a node whose GPUs are all in MIG mode, and empty
        raise reader.wrong("devices", "has a name twice")
    edits = _edits(reader, top.get("containerEdits"), "containerEdits")
    return Spec(source, kind, devices, edits, priority)


def _device(reader: _Reader, document: object, where: str) -> tuple[str, ContainerEdits]:
    of = reader.known(document, _DEVICE, where)
    name = of.get("name")
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.:-]*", name):
        raise reader.wrong(f"{where}.name", "is not a device name (YAML needs quotes around a number)")
    return name, _edits(reader, of.get("containerEdits"), f"{where}.containerEdits")


def _edits(reader: _Reader, document: object, where: str) -> ContainerEdits:
    if document is None:
        return ContainerEdits()
    of = reader.known(document, _EDITS, where)
    env = reader.texts(of, "env", where)
    if any("=" not in each for each in env):
        raise reader.wrong(f"{where}.env", "has an entry without =")
    return ContainerEdits(
        env=env,
        device_nodes=reader.each(of, "deviceNodes", where, lambda one, at: _node(reader, one, at)),
        mounts=reader.each(of, "mounts", where, lambda one, at: _mount(reader, one, at)),
        hooks=reader.each(of, "hooks", where, lambda one, at: _hook(reader, one, at)),
        gids=tuple(_gids(reader, of, where)),
    )


def _node(reader: _Reader, document: object, where: str) -> DeviceNode:
    of = reader.known(document, _NODE, where)
    path = reader.path(of, "path", where)
    kind = reader.value(of, "type", str, where)
    permissions = reader.value(of, "permissions", str, where) or "rwm"
    if kind not in (None, "", "c", "b", "u") or not re.fullmatch(r"[rwm]{1,3}|none", permissions):
        raise reader.wrong(where, "has a type or permissions that no device has")
    return DeviceNode(
        path=path,
        host_path=reader.path(of, "hostPath", where) if of.get("hostPath") else path,
        type=kind or None,
        permissions=permissions,
        major=reader.number(of, "major", where),
        minor=reader.number(of, "minor", where),
        file_mode=reader.number(of, "fileMode", where),
        uid=reader.number(of, "uid", where),
        gid=reader.number(of, "gid", where),
    )


def _mount(reader: _Reader, document: object, where: str) -> Mount:
    of = reader.known(document, _MOUNT, where)
    return Mount(
        source=reader.path(of, "hostPath", where),
        target=reader.path(of, "containerPath", where),
        options=reader.texts(of, "options", where),
        type=reader.value(of, "type", str, where) or None,
    )


def _hook(reader: _Reader, document: object, where: str) -> Hook:
    of = reader.known(document, _HOOK, where)
    stage = reader.text(of, "hookName", where)
    if stage not in STAGES:
        raise reader.wrong(f"{where}.hookName", f"is not a stage of a container: {stage}")
    return Hook(
        stage=stage,
        path=reader.path(of, "path", where),
        args=reader.texts(of, "args", where),
        env=reader.texts(of, "env", where),
        timeout=reader.number(of, "timeout", where),
    )


def _gids(reader: _Reader, of: Mapping[str, Any], where: str) -> Iterable[int]:
    for name in ("additionalGids", "additionalGIDs"):
        for gid in reader.value(of, name, list, where) or []:
            if not isinstance(gid, int) or isinstance(gid, bool) or gid < 0:
                raise reader.wrong(f"{where}.{name}", "is not a list of group ids")
            if gid:
                yield gid


def edits(specs: Iterable[Spec], kind: str, device_names: Sequence[str]) -> ContainerEdits:
    """What the named devices of a kind need: each used spec's own edits once, then the devices' in order.

    GpuportionError GP302: a device that no spec has, or that two specs of one folder both define.
    """
    of_kind = [spec for spec in specs if spec.kind == kind]
    chosen = [(_defining(of_kind, kind, name), name) for name in device_names]
    whole = ContainerEdits()
    for spec in _once(tuple(id(spec) for spec, _ in chosen)):
        whole = whole.plus(next(one.edits for one, _ in chosen if id(one) == spec))
    for one, name in chosen:
        whole = whole.plus(one.devices[name])
    return whole


def _defining(specs: Sequence[Spec], kind: str, name: str) -> Spec:
    found = [spec for spec in specs if name in spec.devices]
    if not found:
        known = " ".join(sorted({each for spec in specs for each in spec.devices})) or "none"
        why = f"no CDI spec has the device {kind}={name} (known: {known[:400]}). {ANEW}"
        raise GpuportionError("GP302", why=why)
    best = max(spec.priority for spec in found)
    winners = [spec for spec in found if spec.priority == best]
    if len(winners) > 1:
        both = " and ".join(spec.source for spec in winners)
        raise GpuportionError("GP302", why=f"{both} both define the CDI device {kind}={name}")
    return winners[0]


def common(specs: Iterable[Spec], kind: str) -> Spec:
    """The spec that has the driver's files for all its devices, for a device that no spec knows yet.

    GpuportionError GP302: there is none, or two of one folder that differ.
    """
    having = [spec for spec in specs if spec.kind == kind and _has_libcuda(spec.edits)]
    if not having:
        why = f"no CDI spec of {kind} mounts the driver's libcuda.so for all devices. {ANEW}"
        raise GpuportionError("GP302", why=why)
    best = max(spec.priority for spec in having)
    first, *others = [spec for spec in having if spec.priority == best]
    for other in others:
        if other.edits != first.edits:
            both = f"{first.source} and {other.source}"
            raise GpuportionError("GP302", why=f"{both} have the driver's files for {kind}, and they differ")
    return first


def _has_libcuda(of: ContainerEdits) -> bool:
    return any(LIBCUDA.fullmatch(posixpath.basename(mount.target)) for mount in of.mounts)


def name_of(specs: Iterable[Spec], kind: str, *, index: int, uuid: str) -> str:
    """The CDI name of a GPU: its UUID where a spec has it, since an index may be another GPU's by now."""
    names = {name for spec in specs if spec.kind == kind for name in spec.devices}
    return uuid if uuid in names else str(index)


def is_known(specs: Iterable[Spec], kind: str, name: str) -> bool:
    """Whether a spec has this device."""
    return any(name in spec.devices for spec in specs if spec.kind == kind)


def targets(specs: Iterable[Spec], kind: str) -> frozenset[str]:
    """Every container path that specs of a kind may put something at: device nodes and mounts."""
    paths: set[str] = set()
    for spec in specs:
        if spec.kind == kind:
            for each in (spec.edits, *spec.devices.values()):
                paths.update(node.path for node in each.device_nodes)
                paths.update(mount.target for mount in each.mounts)
    return frozenset(paths)


def driver_paths(of: ContainerEdits) -> tuple[str, str]:
    """Host paths of the real libcuda and NVML. GpuportionError GP302 if the CDI spec does not mount one."""
    return _driver_file(of, LIBCUDA, "libcuda.so"), _driver_file(of, LIBNVML, "libnvidia-ml.so")


def _driver_file(of: ContainerEdits, pattern: re.Pattern[str], name: str) -> str:
    for mount in of.mounts:
        if pattern.fullmatch(posixpath.basename(mount.target)) and not OTHER_CLASS.search(mount.target):
            return mount.source
    raise GpuportionError("GP302", why=f"the CDI spec of {GPU_KIND} mounts no {name}. {ANEW}")
