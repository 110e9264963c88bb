"""`gpuportion install`: makes a container engine know our runtime."""

from __future__ import annotations

import argparse
import sys
from typing import Final

from gpuportion import paths
from gpuportion.cli import built
from gpuportion.cli.command import Plain
from gpuportion.cli.daemon import is_answered
from gpuportion.shim.engines import docker

NEXT: Final = """\
Next: docker run --rm --runtime=gpuportion -e GPU_MEMORY_LIMIT=4G IMAGE COMMAND"""
NO_DAEMON: Final = """\
The gpuportion daemon does not answer on {socket}: requests are refused until it runs.
Start it: systemctl enable --now gpuportiond.socket, or: gpuportion daemon"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """What installing and uninstalling have in common."""
    parser.add_argument("--engine", choices=["docker"], required=True, help="the engine")
    parser.add_argument("--config", metavar="FILE", default=docker.CONFIG, help=f"default: {docker.CONFIG}")
    parser.add_argument(
        "--pidfile",
        metavar="FILE",
        default=docker.PIDFILE,
        help=f"of the running engine; default: {docker.PIDFILE}",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="show what would change in the file, change nothing"
    )


def carry_out(change: docker.Change, args: argparse.Namespace) -> None:
    """Do it and say what was done; or, for --dry-run, only show it."""
    if args.dry_run:
        print(
            change.diff or f"{change.config} is as it should be: nothing to do",
            end="" if change.diff else "\n",
        )
        return
    for line in docker.apply(change, pidfile=args.pidfile):
        print(line)


class Install(Plain):
    help = "make a container engine know the runtime gpuportion"
    epilog = "Running containers are not touched. gpuportion uninstall takes back exactly what this adds."

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        add_options(parser)
        parser.add_argument(
            "--set-as-default", action="store_true", help="for containers that name no runtime, too"
        )

    def run(self, args: argparse.Namespace) -> int:
        runtime = built.path(built.RUNTIME)
        carry_out(docker.plan_install(args.config, runtime, set_default=args.set_as_default), args)
        if not args.dry_run:
            print(NEXT)
            if not is_answered():
                print(NO_DAEMON.format(socket=paths.socket_path()), file=sys.stderr)
        return 0


COMMAND: Final = Install()
