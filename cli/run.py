"""`gpuportion run`: docker run (podman, nerdctl) with a portion of a GPU.

It only writes the engine's command and becomes it. The portion goes in as environment of the container, the
one channel that every engine passes on; whoever writes `docker run --runtime=gpuportion -e
GPU_MEMORY_LIMIT=4G` by hand gets the same.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, NoReturn

from gpuportion.cli import built, portion
from gpuportion.cli.command import Plain
from gpuportion.errors import GpuportionError
from gpuportion.shim import request

RUNTIME: Final = "gpuportion"
"""The name that `gpuportion install` gives the runtime in docker's configuration."""

ENGINES: Final = {  # engine -> the start of its command
    "docker": ("docker", "run", f"--runtime={RUNTIME}"),
    "podman": ("podman", "--runtime={path}", "run"),
    "nerdctl": ("nerdctl", "run", "--runtime={path}"),
}
FLAGS: Final = frozenset(
    (
        "--detach",
        "--disable-content-trust",
        "--help",
        "--init",
        "--interactive",
        "--no-healthcheck",
        "--no-hosts",
        "--oom-kill-disable",
        "--privileged",
        "--publish-all",
        "--quiet",
        "--read-only",
        "--replace",
        "--rm",
        "--rmi",
        "--sig-proxy",
        "--tty",
    )
)
"""Options of the engines' `run` that take no value; they show where the options end and the image stands."""
SHORT_FLAGS: Final = frozenset("ditPq")


class Run(Plain):
    help = "run a container with a portion of a GPU"
    usage = "[options] [--] [options of the engine's run] IMAGE [COMMAND ...]"
    takes_command = True
    epilog = (
        "What follows these options is the engine's own:\n\n"
        "  gpuportion run --gpu-memory 4G --rm -it ubuntu nvidia-smi\n\n"
        "The exit status is that of the engine, which is that of the container."
    )

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        portion.add_options(parser)
        parser.add_argument("--engine", choices=list(ENGINES), default="docker", help="default: docker")
        parser.add_argument("--dry-run", action="store_true", help="print the engine's command, run nothing")

    def run(self, args: argparse.Namespace) -> int:
        keys = portion.asked(args)
        if not args.rest:
            args.parser.error("name the image after the options")
        refuse_contradictions(keys, args.rest)
        words = command(args.engine, keys, args.rest, built.path)
        if args.dry_run:
            print(shlex.join(words))
            return 0
        become(words)


def command(
    engine: str, keys: Mapping[str, str], rest: Sequence[str], path_of: Callable[[str], str]
) -> list[str]:
    """The engine's whole command; `path_of` gives the path of a file of this installation."""
    start = ENGINES[engine]
    path = path_of(built.RUNTIME) if any("{path}" in word for word in start) else ""
    env = [word for key, value in keys.items() for word in ("-e", f"{key}={value}")]
    return [*(word.format(path=path) for word in start), *env, *rest]


def refuse_contradictions(keys: Mapping[str, str], rest: Sequence[str]) -> None:
    """GP106 for an engine's option that would silently undo what our options say."""
    for option, value in engine_options(rest):
        if option == "--runtime" and value != RUNTIME:
            raise GpuportionError(
                "GP106", keys=f"gpuportion run and --runtime={value}", why="only our runtime gives portions"
            )
        name = value.partition("=")[0]
        key = {"-e": name, "--env": name, "--annotation": _env_of(name)}.get(option, "")
        if key in keys:
            flag = request.ENV_KEYS[key].flag
            raise GpuportionError("GP106", keys=f"{flag} and {option} {value}", why="both set the same")


def _env_of(annotation: str) -> str:
    """The environment's name of what an annotation asks for."""
    key = request.ANNOTATION_KEYS.get(annotation)
    return key.env if key else ""


def engine_options(rest: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(option, value) of the engine's options, up to the image; "" for those without a value."""
    words = iter(rest)
    for word in words:
        if not word.startswith("-") or word == "--":
            return
        option, equals, value = word.partition("=")
        if not option.startswith("--") and len(option) > 2 and not set(option[1:]) <= SHORT_FLAGS:
            option, value = word[:2], word[2:]  # -eKEY=value
        elif not equals and option not in FLAGS and not set(option[1:]) <= SHORT_FLAGS:
            value = next(words, "")
        yield option, value


def become(words: Sequence[str]) -> NoReturn:
    """Replace this process by the command, so that signals, terminal and exit status are its own."""
    program = shutil.which(words[0])
    if program is None:
        raise GpuportionError("GP305", what=f"the command {words[0]}", why="it is not in PATH")
    os.execv(program, list(words))


COMMAND: Final = Run()
