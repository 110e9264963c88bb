"""`gpuportion exec`: a plain process of the host with a portion of a GPU, without any container engine.

The daemon grants to this process, known by a pidfd, and this process then becomes the command. Where it may
have a private mount namespace, our library stands over the driver's for whatever the command starts; where
it may not, the loader is pointed to a private folder by LD_LIBRARY_PATH and LD_PRELOAD, which a program
that clears its environment gets around. A MIG instance is named to the driver by CUDA_VISIBLE_DEVICES, and holds the
command to its size. stderr says which of the three it was.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Iterable, Mapping
from typing import Any, Final, NoReturn

from gpuportion import client, paths
from gpuportion.cli import portion, private_mounts
from gpuportion.cli.command import Plain
from gpuportion.cli.daemon import simulated
from gpuportion.errors import GpuportionError

LISTS: Final = ("LD_PRELOAD", "LD_LIBRARY_PATH")
"""Variables that the caller may have set as well: ours goes first, theirs stays."""

WAYS: Final = {
    True: "held in a private mount namespace",
    False: (
        "held by LD_LIBRARY_PATH and LD_PRELOAD, for a private mount namespace isn't allowed here: "
        "a program that clears them is not held"
    ),
}

BY_MIG: Final = (
    "held by the MIG instance {profile}, which CUDA_VISIBLE_DEVICES names: "
    "a program that sets that anew is not held"
)


class Exec(Plain):
    help = "run a command on this host with a portion of a GPU, without a container"
    usage = "[options] [--] COMMAND [ARGUMENT ...]"
    takes_command = True
    epilog = (
        "  gpuportion exec --gpu-memory 1G -- python train.py\n\n"
        "The portion is given back when the command and all that it started have ended. The exit status is\n"
        "that of the command."
    )

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        portion.add_options(parser)
        parser.add_argument(
            "--quiet", action="store_true", help="do not say on stderr how the portion is held"
        )

    def run(self, args: argparse.Namespace) -> int:
        keys = portion.asked(args)
        program = _program(args)
        mounts = private_mounts.possible()
        grant = _ask(keys, args.rest[0], mounts)
        if grant["mounts"]:
            _mount(grant["mounts"])
        if not args.quiet:
            print(f"gpuportion: {_way(grant, mounts)}", file=sys.stderr, flush=True)
        _become(program, args.rest, environment({**simulated(paths.run_dir()), **os.environ}, grant["env"]))


def _way(grant: Mapping[str, Any], mounts: bool) -> str:
    """How the command is held."""
    mig = grant.get("mig")
    return BY_MIG.format(profile=mig["profile"]) if mig else WAYS[mounts]


def environment(own: Mapping[str, str], granted: Mapping[str, str]) -> dict[str, str]:
    """The command's: what was granted, and the caller's lists of libraries behind ours."""
    lists = {name: f"{granted[name]}:{own[name]}" for name in LISTS if name in granted and own.get(name)}
    return {**own, **granted, **lists}


def _program(args: argparse.Namespace) -> str:
    """Looked for before anything is reserved."""
    if not args.rest or args.rest[0].startswith("-"):
        args.parser.error("name the command after the options")
    name: str = args.rest[0]
    program = shutil.which(name)
    if program is None:
        raise GpuportionError("GP305", what=f"the command {name}", why="it is not in PATH, or not executable")
    return program


def _mount(mounts: Iterable[Mapping[str, str]]) -> None:
    try:
        private_mounts.enter()
        private_mounts.bind((pair["source"], pair["target"]) for pair in mounts)
    except OSError as problem:
        raise GpuportionError("GP306", what="the private mount namespace", why=problem.strerror) from None


def _become(program: str, words: list[str], env: dict[str, str]) -> NoReturn:
    try:
        os.execve(program, words, env)
    except OSError as problem:
        raise GpuportionError("GP306", what=f"starting {program}", why=problem.strerror) from None


def _ask(keys: Mapping[str, str], argv0: str, mounts: bool) -> dict[str, Any]:
    pidfd, name = os.pidfd_open(os.getpid()), os.path.basename(argv0)
    try:
        return client.ask("exec", request=keys, argv0=name, mounts=mounts, fds=(pidfd,)).head
    finally:
        os.close(pidfd)


COMMAND: Final = Exec()
