"""What this host has of the Injection of a grant that is a MIG instance: numbers of device nodes, and files.

The capabilities' nodes (mig_edits.py) are made in the container, so they need not exist on the host; in a user
namespace, where none can be made, they are made on the host as nvidia-modprobe would. Decides nothing. Nothing of
ours is loaded in the container: the GPU holds it to its memory.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Mapping
from typing import Any, Final

from gpuportion.allocator import cdi_files, device_nodes, fields, injection, mig_edits
from gpuportion.allocator.mig import capabilities
from gpuportion.allocator.mig.portion import MigPortion
from gpuportion.errors import GpuportionError
from gpuportion.hooks import stages
from gpuportion.shim import cdi, driver, spec

PROC_VARIABLE: Final = "GPUPORTION_DRIVER_PROC"
"""Stands for /proc in what is read of the driver here: a simulated one has its own."""


def gather(
    specs: injection.Specs,
    portion: MigPortion,
    *,
    token: str,
    container: str,
    socket: str,
    before: Mapping[str, Any],
) -> spec.Injection:
    """The Injection of a grant that is `portion`, for a container whose config.json is `before`.

    GpuportionError GP302: this host cannot give it."""
    major, minors = numbers(portion)
    edits = mig_edits.container_edits(specs, portion, major, minors)
    cdi.driver_paths(edits)
    cdi_files.require_sources(edits)
    linux = before.get("linux")
    if isinstance(linux, dict) and spec.in_user_namespace(linux):
        make_nodes(edits)
    cdi_paths = injection.targets(specs)
    made = driver.driver(edits, device_nodes.numbers(edits), None)
    return spec.Injection(
        driver=made,
        hooks=stages.entries(injection.programs().hook, socket=socket, token=token, container=container),
        interposer=None,
        cdi_paths=cdi_paths,
        driver_majors=injection.majors(int(time.monotonic())) | {major},
        displaced=injection.displaced(fields.mounts_of(dict(before)), made, cdi_paths),
    )


def numbers(portion: MigPortion) -> tuple[int, tuple[int, int]]:
    """The major number of the capabilities' nodes, and the minor numbers of an instance's two."""
    proc = os.environ.get(PROC_VARIABLE) or "/proc"
    major = capabilities.major_in(_text(f"{proc}/devices"))
    if major is None:
        why = f"{proc}/devices has no nvidia-caps: the driver is older than R450, or its module is not loaded"
        raise GpuportionError("GP302", why=why)
    table = _text(f"{proc}/{capabilities.MINORS}")
    named = zip(capabilities.names(portion), capabilities.files(portion), strict=True)
    of_instance, of_compute = (_minor(table, proc, name, file) for name, file in named)
    return major, (of_instance, of_compute)


def _minor(table: str, proc: str, name: str, file: str) -> int:
    own = f"{proc}/{capabilities.CAPABILITIES}/{file}"
    found = capabilities.minor_in(table, name)
    if found is None:
        found = capabilities.minor_told(_text(own))
    if found is None:
        why = f"the driver tells no device number of the MIG instance: neither {proc}/{capabilities.MINORS} nor {own}"
        raise GpuportionError("GP302", why=why)
    return found


def _text(path: str) -> str:
    """A small file of the driver's; "" where it is not there, as after a GPU was reset."""
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def make_nodes(edits: cdi.ContainerEdits) -> None:
    """The capabilities' nodes that this host lacks. GpuportionError GP306 if they can't be made."""
    for node in edits.device_nodes:
        if f"/{capabilities.FOLDER}/" not in node.host_path or node.major is None or node.minor is None:
            continue
        number = os.makedev(node.major, node.minor)
        try:
            os.makedirs(os.path.dirname(node.host_path), mode=0o755, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                os.mknod(node.host_path, stat.S_IFCHR | mig_edits.READABLE, number)
                os.chmod(node.host_path, mig_edits.READABLE)
        except OSError as problem:
            raise GpuportionError("GP306", what=f"making {node.host_path}", why=problem.strerror) from None
        there = os.lstat(node.host_path)
        if not stat.S_ISCHR(there.st_mode) or there.st_rdev != number:
            why = f"it is there with another number than {node.major}:{node.minor}. Remove it"
            raise GpuportionError("GP306", what=f"using {node.host_path}", why=why)
