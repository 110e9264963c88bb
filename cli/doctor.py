"""`gpuportion doctor`: what this node needs to hold containers to a portion, what is there, what to do next.

It looks and changes nothing. One check a function; the table CHECKS has them, with what to do if one fails. What
there is to say of the container engines is in `doctor_engines.py`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
from collections.abc import Callable
from typing import Final

from gpuportion import client, paths, sizes
from gpuportion.cli import built
from gpuportion.cli.command import Plain, add_json, print_json
from gpuportion.cli.finding import Finding, ProblemError, line
from gpuportion.errors import GpuportionError, RefusedError

OLDEST_KERNEL: Final = (5, 10)
WAIT: Final = 5.0


class Doctor(Plain):
    help = "check whether this node can hold containers to a portion"
    epilog = "Exit status 1 if anything is wrong. A node that only runs `gpuportion exec` needs no docker."

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        add_json(parser)

    def run(self, args: argparse.Namespace) -> int:
        findings = [*(examine(name) for name in CHECKS), *engines()]
        if args.json:
            print_json([finding._asdict() for finding in findings])
        else:
            print("\n".join(map(line, findings)))
        return 0 if all(finding.ok for finding in findings) else 1


def engines() -> list[Finding]:
    """One finding each; none where the launcher wasn't built, which is a finding already."""
    from gpuportion.cli import doctor_engines

    return doctor_engines.findings() if examine("build").ok else []


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
    """What the launcher becomes is for it to say; an engine's environment may name another one."""
    check_build()
    command = [built.path(built.RUNTIME), "--version"]
    env = {name: value for name, value in os.environ.items() if name != "GPUPORTION_RUNTIME"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30, env=env)
    if done.returncode != 0:
        raise ProblemError(done.stderr.strip())
    return ", ".join(done.stdout.splitlines()[:2])


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
}

COMMAND: Final = Doctor()
