"""What of NVIDIA's (or of an earlier edit of ours) is already in an OCI spec: found by tables, taken out.

`docker --gpus`, `--device nvidia.com/gpu=...` and a default NVIDIA runtime put whole GPUs and the real driver
into a spec; left in, they would hand over what was not granted and mount the real driver over our library.
Works on the lists of a spec, returns new ones, and says in words what went. Knows nothing of grants.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from gpuportion.paths import INSIDE, INSIDE_PRELOAD

Entry = Mapping[str, Any]

NVIDIA_MAJOR: Final = 195
"""The fixed character major of /dev/nvidia*; nvidia-uvm and nvidia-caps get theirs when they load."""
SHARED_MAJORS: Final = frozenset({1, 5, 136})
"""Of /dev/null, /dev/tty, /dev/pts: every container's rules name them, whatever a node of ours borrows."""

DEVICE: Final = "/dev/nvidia"
"""How the path of every node of the driver's begins."""
DRIVER_NAME: Final = re.compile(
    r"(libcuda|libcudadebugger|libnvidia-[^/]+|libnvcuvid|libnvoptix|lib(GLX|EGL|GLESv1_CM|GLESv2|vdpau)_nvidia)"
    r"\.so(\.[0-9.]+)?"
)
DRIVER_PATH: Final = re.compile(
    r"(/dev/nvidia|/proc/driver/nvidia|/usr/bin/nvidia-|/tmp/nvidia-mps|(/var)?/run/nvidia-"
    r"|(/usr)?/lib/firmware/nvidia/).*"
)
"""Also where NVIDIA's runtime takes requests as mounts: /var/run/nvidia-container-devices/..."""
WORDS: Final = ("nvidia", "libcuda", "libnv", posixpath.basename(INSIDE), posixpath.basename(INSIDE_PRELOAD))
"""One is in each path that is the driver's or in our place, however it is written: none holds a slash. Most specs have
none of them, which one look at all their mounts tells."""
HOOKS: Final = frozenset(
    {
        "nvidia-container-runtime-hook",
        "nvidia-container-toolkit",
        "nvidia-ctk",
        "nvidia-cdi-hook",
        "nvidia-container-cli",
    }
)
ENV: Final = frozenset(
    {
        "NVIDIA_VISIBLE_DEVICES",
        "NVIDIA_MIG_CONFIG_DEVICES",
        "NVIDIA_MIG_MONITOR_DEVICES",
        "NVIDIA_IMEX_CHANNELS",
    }
)
ENV_BEGINS: Final = ("CUDA_MPS_", "GPUPORTION_")
"""Names that would widen a grant or tell our library something. NVIDIA_DRIVER_CAPABILITIES stays: with
NVIDIA's hooks gone nothing acts on it, and programs read it."""


class Removed(list[str]):
    """What went, in words for the log: `mount /usr/bin/nvidia-smi`."""


def majors(proc_devices: str) -> frozenset[int]:
    """The character majors of NVIDIA's drivers in a /proc/devices."""
    characters = proc_devices.partition("Block devices:")[0]
    found = re.findall(r"^ *([0-9]+) nvidia", characters, re.MULTILINE)
    return frozenset({NVIDIA_MAJOR, *map(int, found)})


def devices(
    nodes: Sequence[Entry], driver_majors: frozenset[int], cdi_paths: frozenset[str], removed: Removed
) -> tuple[list[Entry], set[tuple[str, int, int]]]:
    """The nodes that stay, and the numbers of those that went."""
    stay, gone = [], set()
    for node in nodes:
        path = _path(node.get("path"))
        ours = node.get("type") in ("c", "u") and node.get("major") in driver_majors
        if not (ours or path in cdi_paths or path.startswith(DEVICE)):
            stay.append(node)
            continue
        gone.add((str(node.get("type")), int(node.get("major") or 0), int(node.get("minor") or 0)))
        removed.append(f"device {path}")
    return stay, gone


def rules(
    given: Sequence[Entry], driver_majors: frozenset[int], gone: set[tuple[str, int, int]], removed: Removed
) -> list[Entry]:
    """The cgroup rules that stay: none for a driver's major, none that lets in a node that went."""
    numbers = {each for each in gone if each[1] not in SHARED_MAJORS}
    going = [
        rule
        for rule in given
        if (rule.get("major") in driver_majors and rule.get("type") == "c")
        or (numbers and (rule.get("type"), rule.get("major"), rule.get("minor")) in numbers)
    ]
    for rule in going:
        minor = rule.get("minor")
        number = f"{rule.get('major')}:{'*' if minor is None else minor}"
        removed.append(f"device rule {rule.get('type')} {number}")
    return [rule for rule in given if rule not in going]


def mounts(given: Sequence[Entry], cdi_paths: frozenset[str], removed: Removed) -> list[Entry]:
    """The mounts that stay: none of a driver file, by whatever name, none that would lie in place of ours."""
    targets = plain_paths([mount.get("destination") for mount in given])
    text = "\n".join([*targets, *[str(mount.get("source")) for mount in given]])
    if cdi_paths.isdisjoint(targets) and not any([word in text for word in WORDS]):
        return list(given)
    stay = []
    for target, mount in zip(targets, given, strict=True):
        of_driver = target in cdi_paths or _of_driver(target) or _of_driver(_path(mount.get("source")))
        if of_driver or _in_our_place(target):
            removed.append(f"mount {target}")
        else:
            stay.append(mount)
    return stay


def _of_driver(path: str) -> bool:
    return bool(DRIVER_NAME.fullmatch(posixpath.basename(path)) or DRIVER_PATH.fullmatch(path))


def _in_our_place(target: str) -> bool:
    return target in (INSIDE, INSIDE_PRELOAD) or target.startswith(INSIDE + "/")


def hooks(given: Mapping[str, Any], ours: frozenset[str], removed: Removed) -> dict[str, list[Entry]]:
    """Stage -> the hooks that stay. `ours` are the base names of our own program, from an earlier edit."""
    stay: dict[str, list[Entry]] = {}
    for stage, entries in given.items():
        stay[stage] = []
        for entry in entries or ():
            name = posixpath.basename(str(entry.get("path")))
            if name in HOOKS or name in ours:
                removed.append(f"{stage} hook {name}")
            else:
                stay[stage].append(entry)
    return stay


def env(given: Sequence[str], removed: Removed) -> dict[str, str]:
    """Name -> whole entry of what stays; of duplicates the last one, as runc and crun take it."""
    stay = {entry.partition("=")[0]: entry for entry in given}
    for name in [name for name in stay if name in ENV or name.startswith(ENV_BEGINS)]:
        del stay[name]
        removed.append(f"environment {name}")
    return stay


def plain_paths(values: Sequence[object]) -> list[str]:
    """Each as `plain_path` has it; "" for what is no path. Most are so already, which one look at all tells."""
    texts = [value for value in values if type(value) is str]
    lines = "\n{}\n".format("\n".join(texts))
    # As many lines as there are values, so none is of several; and as many that begin with a slash.
    whole = len(texts) == len(values) == lines.count("\n/") == lines.count("\n") - 1
    if whole and "//" not in lines and "/." not in lines and "/\n" not in lines:
        return texts
    return [_path(value) for value in values]


def _path(value: object) -> str:
    return plain_path(value) if isinstance(value, str) and value else ""


def plain_path(path: str) -> str:
    """A path without what hides it: `//.gpuportion/`, `/x/../dev/nvidia0`, `dev/nvidia0` (runtimes begin at the
    container's root)."""
    return posixpath.normpath("/" + path.lstrip("/"))
