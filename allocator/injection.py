"""What a container's grant puts into its OCI spec: gathers host paths and numbers for `shim.spec`.

Decides nothing and edits nothing. Every path is the host's, and root's.
"""

from __future__ import annotations

import functools
import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from gpuportion import paths
from gpuportion.allocator import cdi_files, device_nodes, gpu_nodes, pages
from gpuportion.allocator.devices import Share
from gpuportion.errors import GpuportionError
from gpuportion.hooks import stages
from gpuportion.shim import cdi, strip, volumes
from gpuportion.shim.image_drivers import Image
from gpuportion.shim.preload import preload_text
from gpuportion.shim.spec import Injection, Interposer

log: Final = logging.getLogger("gpuportiond")

OURS_ALONE: Final = preload_text(b"")
INSIDE_LIBCUDA: Final = f"{paths.INSIDE_DRIVER}/libcuda.so.1"
INSIDE_LIBNVML: Final = f"{paths.INSIDE_DRIVER}/libnvidia-ml.so.1"


@dataclass(frozen=True, slots=True)
class Programs:
    """The built files of this installation."""

    library: str
    nvml_library: str
    hook: str
    alias: str


@functools.lru_cache(maxsize=1)
def programs() -> Programs:
    """GpuportionError GP302 if they were not built. What is missing is looked for again the next time."""
    try:
        return Programs(
            library=paths.package_file("lib/libcap_mem.so"),
            nvml_library=paths.package_file("lib/libcap_nvml.so"),
            hook=paths.package_file("bin/gpuportion-hook"),
            alias=paths.package_file("lib/libcap_alias.so"),
        )
    except FileNotFoundError as problem:
        raise GpuportionError("GP302", why=f"gpuportion is not whole: {problem}") from None


Specs = tuple[cdi.Spec, ...]


def device_edits(specs: Specs, shares: Sequence[Share], minors: Mapping[str, int]) -> cdi.ContainerEdits:
    """What the GPUs of a grant need. `minors`: their minor numbers, by UUID, for those that no spec has: they were in
    MIG mode when it was made. GpuportionError GP302: the specs have no driver, or an old one."""
    edits, unknown = _named(specs, tuple((share.index, share.uuid) for share in shares))
    if unknown:
        log.info("no CDI spec has %s: its node is given by its number", " and ".join(unknown))
        edits = edits.plus(gpu_nodes.edits(specs, [minors[uuid] for uuid in unknown]))
    cdi.driver_paths(edits)
    cdi_files.require_files(edits)
    return edits


@functools.lru_cache(maxsize=64)
def _named(specs: Specs, gpus: tuple[tuple[int, str], ...]) -> tuple[cdi.ContainerEdits, tuple[str, ...]]:
    """What the specs have for GPUs of these indexes and UUIDs, and the UUIDs of those that none has."""
    names = {uuid: cdi.name_of(specs, cdi.GPU_KIND, index=index, uuid=uuid) for index, uuid in gpus}
    unknown = tuple(uuid for uuid, name in names.items() if not cdi.is_known(specs, cdi.GPU_KIND, name))
    known = [name for uuid, name in names.items() if uuid not in unknown]
    return cdi.edits(specs, cdi.GPU_KIND, known), unknown


@functools.lru_cache(maxsize=8)
def targets(specs: Specs) -> frozenset[str]:
    """Where in a container the specs of GPUs may put something."""
    return cdi.targets(specs, cdi.GPU_KIND)


def gather(
    specs: Specs,
    edits: cdi.ContainerEdits,
    folder: str,
    *,
    token: str,
    container: str,
    socket: str,
    mounts: Sequence[Mapping[str, Any]] = (),
    image: Image | None = None,
) -> Injection:
    """The Injection of a grant whose pages lie in `folder`, with its ld.so.preload (see `preload`).

    `mounts`: the spec's own. GpuportionError GP311: they leave no place for it."""
    ours, found = programs(), image or Image()
    cdi_paths = targets(specs)
    stay = strip.mounts(mounts, cdi_paths, strip.Removed())  # what goes has no place to keep from the driver
    return Injection(
        edits=edits,
        device_numbers=device_nodes.numbers(edits),
        interposer=Interposer(
            library=ours.library,
            nvml_library=ours.nvml_library,
            alias=ours.alias,
            policy=f"{folder}/policy",
            ledger=f"{folder}/ledger/ledger",
            preload=f"{folder}/{pages.PRELOAD}",
            image_drivers=found.drivers,
            image_mounts=found.mounts,
        ),
        hooks=stages.entries(ours.hook, socket=socket, token=token, container=container),
        cdi_paths=cdi_paths,
        driver_majors=majors(int(time.monotonic())),
        displaced=displaced(stay, edits),
    )


def displaced(
    mounts: Sequence[Mapping[str, Any]], edits: cdi.ContainerEdits, *, preload: bool = True
) -> frozenset[str]:
    """The driver's files for which a read-only volume has no place. Only looked at: nothing there is a source.

    `preload`: whether ours is among them, which must have its place."""
    own = [paths.INSIDE_PRELOAD] if preload else []
    targets = [*own, *(mount.target for mount in edits.mounts)]
    there = volumes.read_only(mounts, targets)
    missing = {target: place for target, place in there.items() if not os.path.lexists(place)}
    if paths.INSIDE_PRELOAD in missing:
        why = f"{missing[paths.INSIDE_PRELOAD]} is missing in a read-only volume. Make it, empty"
        raise GpuportionError("GP311", why=why)
    return frozenset(missing)


@functools.lru_cache(maxsize=1)
def majors(second: int) -> frozenset[int]:
    """The driver's majors, read once a second at most: they change only when its modules are loaded again."""
    return device_nodes.driver_majors()


def preload(image_preload: bytes) -> bytes:
    """The /etc/ld.so.preload to mount."""
    return preload_text(image_preload) if image_preload else OURS_ALONE
