"""Files of an NVIDIA driver that the image carries: which of the host's are mounted over them.

Images bring cuda-compat, a newer driver than the host's, and some a whole driver. Opened by its path it would
serve without counting, and its compilers would be found, by LD_LIBRARY_PATH, by the host's driver, which is of
another version. So each such file becomes its counterpart: our library for libcuda and NVML, the host's file for
what the host has as well. The image's paths are only ever places to mount at, never sources.

What is there the launcher has found (shim/c/image_drivers.c). Pure.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from gpuportion.paths import INSIDE, INSIDE_PRELOAD
from gpuportion.shim import cdi

PATH: Final = re.compile(r"(/[!-.0-~]+)+")
"""Between two slashes none: else a deep path that is none in the end is tried in all its divisions, which are 2^n."""
STEM: Final = re.compile(r"(?P<stem>[!-~]+?)\.so(\.[0-9]+)*")
"""libnvidia-ptxjitcompiler of libnvidia-ptxjitcompiler.so.550.54.15."""


@dataclass(frozen=True, slots=True)
class Found:
    """A file in the image: a name that it's found by, and where it lies once links are followed."""

    name: str
    path: str


@dataclass(frozen=True, slots=True)
class Image:
    """What the launcher found in it: `drivers`, and `mounts`, where destinations of the spec's mounts lead that lead
    elsewhere by links."""

    drivers: tuple[Found, ...] = ()
    mounts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ours:
    """Host paths of our libraries."""

    cuda: str
    nvml: str


def covers(
    found: Iterable[Found], edits: cdi.ContainerEdits, ours: Ours, places: Sequence[str]
) -> dict[str, str]:
    """Path in the container -> host path of what is mounted there. `places`: where the spec mounts already.

    Below one of these the image's file isn't seen, and a mount would leave its mark in a volume of the user's.
    """
    hidden = (*places, INSIDE, INSIDE_PRELOAD)
    taken = {mount.target for mount in edits.mounts}
    counterparts = _by_stem(edits)
    chosen = {}
    for file in found:
        source = _counterpart(file.name, counterparts, ours)
        known = PATH.fullmatch(file.path) and posixpath.normpath(file.path) == file.path
        elsewhere = file.path not in taken and not any(_is_below(file.path, place) for place in hidden)
        if source and known and elsewhere:
            chosen[file.path] = source
    return chosen


def _is_below(path: str, place: str) -> bool:
    return path == place or path.startswith(f"{place}/")


def _counterpart(name: str, counterparts: dict[str, str], ours: Ours) -> str | None:
    if cdi.LIBCUDA.fullmatch(name):
        return ours.cuda
    if cdi.LIBNVML.fullmatch(name):
        return ours.nvml
    parts = STEM.fullmatch(name)
    return counterparts.get(parts["stem"]) if parts else None


def _by_stem(edits: cdi.ContainerEdits) -> dict[str, str]:
    stems: dict[str, str] = {}
    for mount in edits.mounts:
        parts = STEM.fullmatch(posixpath.basename(mount.target))
        if parts and mount.type in (None, "bind") and not cdi.OTHER_CLASS.search(mount.target):
            stems.setdefault(parts["stem"], mount.source)
    return stems
