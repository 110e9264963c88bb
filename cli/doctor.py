"""`gpuportion doctor`: what this node needs to hold containers to a portion, what is there, what to do next.

It looks and changes nothing. One check a function; the table CHECKS has them, with what to do if one fails.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from collections.abc import Callable
from typing import Final, NamedTuple

from gpuportion import client, paths, sizes
from gpuportion.cli import built
from gpuportion.cli.command import Plain, add_json, print_json
from gpuportion.errors import GpuportionError, RefusedError

LOW_LEVEL: Final = ("runc", "crun")
OLDEST_KERNEL: Final = (5, 10)
WAIT: Final = 5.0


class Finding(NamedTuple):
    """One line: `next` is what to do, empty where all is well."""

    check: str
    ok: bool
    text: str
    next: str


class ProblemError(Exception):
    """What a check found to be wrong."""


class Doctor(Plain):
    help = "check whether this node can hold containers to a portion"
    epilog = "Exit status 1 if anything is wrong. A node that only runs `gpuportion exec` needs no docker."

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        add_json(parser)

    def run(self, args: argparse.Namespace) -> int:
        findings = [examine(name) for name in CHECKS]
        if args.json:
            print_json([finding._asdict() for finding in findings])
        else:
            print("\n".join(map(line, findings)))
        return 0 if all(finding.ok for finding in findings) else 1


def line(finding: Finding) -> str:
    word = "ok" if finding.ok else "problem"
    text = finding.text.replace("\n", "\n" + " " * 18)
    first = f"{word:<9}{finding.check:<9}{text}"
    return f"{first}\n{'':18}next: {finding.next}" if finding.next else first


def examine(name: str) -> Finding:
    look, next = CHECKS[name]
    try:
        return Finding(name, True, look(), "")
    except ProblemError as problem:
        return Finding(name, False, str(problem), next)
    except GpuportionError as refusal:
        return Finding(name, False, str(refusal.values.get("why", refusal)), next)
    except RefusedError as refusal:
        return Finding(name, False, refusal.text, next)


def check_kernel() -> str:
    release = os.uname().release
    number = tuple(int(part) for part in release.split("-")[0].split(".")[:2])
    if number < OLDEST_KERNEL:
        raise ProblemError(f"Linux {release} is too old")
    return f"Linux {release}"


def check_build() -> str:
    try:
        files = [built.path(file) for file in built.FILES]
    except GpuportionError as missing:
        raise ProblemError(f"{missing.values['what']} is missing") from None
    return f"runtime, hook and libraries are in {os.path.dirname(os.path.dirname(files[0]))}"


def check_cgroup() -> str:
    from gpuportion.allocator import cgroups

    mounts = cgroups.mounts()
    if not mounts:
        raise ProblemError("no cgroup hierarchy is mounted")
    return "version 2" if set(mounts) == {""} else f"version 1 ({len(mounts)} hierarchies)"


def check_nvml() -> str:
    """What the daemon sees counts, if there is one: it may have been told to use another NVML."""
    try:
        answer = client.ask("node", wait=WAIT).head
        gpus = [f"{gpu['model']} {sizes.gb(gpu['total'])}" for gpu in answer["gpus"]]
        return f"driver {answer['driver']}; {len(gpus)} GPUs: {', '.join(gpus)}"
    except (GpuportionError, RefusedError):
        from gpuportion.allocator.inventory import Nvml

        sample = Nvml().sample()
    if sample.trouble:
        raise ProblemError(sample.trouble)
    return f"driver {sample.driver}; {len(sample.readings)} GPUs"


def check_cdi() -> str:
    """Also in the daemon's own folder, where it keeps what it had made. What is made here is thrown away."""
    from gpuportion.allocator.cdi_files import CdiFiles, folders

    with tempfile.TemporaryDirectory() as folder:
        files = CdiFiles((*folders(), f"{paths.run_dir()}/cdi"), made=f"{folder}/nvidia.json")
        count = len(files.specs())
    return f"{count} specification(s) of nvidia.com/gpu in {', '.join(files.where)}"


def check_daemon() -> str:
    try:
        answer = client.ask("ping", wait=WAIT).head
    except GpuportionError as silence:
        why = silence.values.get("why") or f"no answer on {paths.socket_path()}"
        raise ProblemError(str(why)) from None
    if not answer["ready"]:
        raise ProblemError(f"process {answer['pid']} is not ready yet")
    return f"version {answer['version']}, process {answer['pid']}, on {paths.socket_path()}"


def check_runtime() -> str:
    found = [program for program in (shutil.which(name, path=_path()) for name in LOW_LEVEL) if program]
    if not found:
        raise ProblemError("neither runc nor crun is in PATH")
    return ", ".join(found)


def check_docker() -> str:
    from gpuportion.shim.engines import docker

    if shutil.which("dockerd", path=_path()) is None:
        return "not on this machine; gpuportion exec needs none"
    check_build()
    if docker.plan_install(docker.CONFIG, built.path(built.RUNTIME)).diff:
        raise ProblemError(f"{docker.CONFIG} does not name our runtime")
    return f"{docker.CONFIG} names our runtime"


def _path() -> str:
    """Daemons lie in sbin, which is not in everybody's PATH."""
    return f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin"


CHECKS: Final[
    dict[str, tuple[Callable[[], str], str]]
] = {  # name -> (check, what to do if it finds a problem)
    "kernel": (check_kernel, f"upgrade to Linux {'.'.join(map(str, OLDEST_KERNEL))} or newer"),
    "build": (check_build, "make build, or install the wheel"),
    "cgroup": (check_cgroup, "mount cgroups; every container engine needs them too"),
    "nvml": (
        check_nvml,
        "install NVIDIA's driver, or try on simulated GPUs: gpuportion daemon --sim a100-80gb:2",
    ),
    "cdi": (check_cdi, ""),  # what is wrong with a specification already says the way out
    "daemon": (check_daemon, "systemctl start gpuportiond, or: gpuportion daemon"),
    "runtime": (check_runtime, "install runc; docker brings it along"),
    "docker": (check_docker, "gpuportion install --engine docker"),
}

COMMAND: Final = Doctor()
