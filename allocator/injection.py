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
from typing import Any, Final, NamedTuple

from gpuportion import paths
from gpuportion.allocator import cdi_files, device_nodes, gpu_nodes, pages
from gpuportion.errors import GpuportionError
from gpuportion.hooks import stages
from gpuportion.shim import cdi, strip, volumes
from gpuportion.shim import driver as parts
from gpuportion.shim.driver import Driver, Libraries
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


class Card(NamedTuple):
    """A GPU as CDI specs may know it, by UUID or NVML's index, and the driver, by its minor number."""

    nvml_index: int
    uuid: str
    minor: int


def driver_of(specs: Specs, cards: Sequence[Card]) -> Driver:
    """What the GPUs of a grant and our libraries come to in a spec. GpuportionError GP302: as `device_edits`, or a
    device node is missing.

    That files and nodes are there is looked at once a second at most, as the majors are: only root changes them, and
    what is so now may be otherwise when the container starts."""
    return _driver(specs, tuple(cards), int(time.monotonic()))


@functools.lru_cache(maxsize=64)
def _driver(specs: Specs, cards: tuple[Card, ...], second: int) -> Driver:
    edits, ours = device_edits(specs, cards), programs()
    libraries = Libraries(cuda=ours.library, nvml=ours.nvml_library, alias=ours.alias)
    return parts.driver(edits, device_nodes.numbers(edits), libraries)


def device_edits(specs: Specs, cards: Sequence[Card]) -> cdi.ContainerEdits:
    """What the GPUs need. Those that no spec has, because they were in MIG mode when it was made, are named by their
    minor numbers. GpuportionError GP302: the specs have no driver, or an old one."""
    edits, unknown = _named(specs, tuple((card.nvml_index, card.uuid) for card in cards))
    if unknown:
        log.info("no CDI spec has %s: its node is given by its number", " and ".join(unknown))
        edits = edits.plus(gpu_nodes.edits(specs, [card.minor for card in cards if card.uuid in unknown]))
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
    driver: Driver,
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
    found, cdi_paths = image or Image(), targets(specs)
    return Injection(
        driver=driver,
        interposer=Interposer(
            policy=f"{folder}/policy",
            ledger=f"{folder}/ledger/ledger",
            preload=f"{folder}/{pages.PRELOAD}",
            image_drivers=found.drivers,
            image_mounts=found.mounts,
        ),
        hooks=stages.entries(programs().hook, socket=socket, token=token, container=container),
        cdi_paths=cdi_paths,
        driver_majors=majors(int(time.monotonic())),
        displaced=displaced(mounts, driver, cdi_paths),
    )


def displaced(
    mounts: Sequence[Mapping[str, Any]], driver: Driver, cdi_paths: frozenset[str]
) -> frozenset[str]:
    """The driver's files for which a read-only volume among the spec's mounts has no place. Only looked at: nothing
    there is a source. Our ld.so.preload must have its place, where our libraries are."""
    if not volumes.any_at(mounts, driver.above):
        return frozenset()
    stay = strip.mounts(mounts, cdi_paths, strip.Removed())  # what goes has no place to keep from the driver
    own = [paths.INSIDE_PRELOAD] if driver.libraries is not None else []
    there = volumes.read_only(stay, [*own, *(mount.target for mount in driver.edits.mounts)])
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
