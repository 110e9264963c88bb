"""`gpuportion install`: makes a container engine know our runtime."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Final

from gpuportion import paths
from gpuportion.cli import built
from gpuportion.cli.command import Plain
from gpuportion.cli.daemon import is_answered
from gpuportion.shim.engines import docker, installation
from gpuportion.shim.engines.installation import Change
from gpuportion.shim.engines.table import ENGINES

NO_DAEMON: Final = """\
The gpuportion daemon does not answer on {socket}: requests are refused until it runs.
Start it: systemctl enable --now gpuportiond.socket, or: gpuportion daemon"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """What installing and uninstalling have in common."""
    defaults = ", ".join(f"{engine.config} ({name})" for name, engine in ENGINES.items())
    parser.add_argument("--engine", choices=list(ENGINES), required=True, help="the engine")
    parser.add_argument("--config", metavar="FILE", help=f"the engine's file; default: {defaults}")
    parser.add_argument(
        "--pidfile",
        metavar="FILE",
        default=docker.PIDFILE,
        help=f"of the running docker; default: {docker.PIDFILE}",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="show what would change in the files, change nothing"
    )


def config(args: argparse.Namespace) -> str:
    """The file that is meant, said or not."""
    return str(args.config or ENGINES[args.engine].config)


def carry_out(changes: Sequence[Change], args: argparse.Namespace) -> None:
    """Do it and say what was done; or, for --dry-run, only show it."""
    if args.dry_run:
        diffs = "".join(change.diff for change in changes)
        print(diffs or "\n".join(change.done for change in changes), end="" if diffs else "\n")
        return
    for line in _applied(changes, args):
        print(line)


def _applied(changes: Sequence[Change], args: argparse.Namespace) -> list[str]:
    if args.engine == docker.ENGINE:
        return [line for change in changes for line in docker.apply(change, pidfile=args.pidfile)]
    lines = installation.apply(args.engine, changes)
    return [*lines, ENGINES[args.engine].reload] if any(change.diff for change in changes) else lines


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
        engine = ENGINES[args.engine]
        edits = engine.edits(config(args), runtime, args.set_as_default)
        carry_out(installation.plan_install(args.engine, edits), args)
        if not args.dry_run:
            print(f"Next: {engine.example}")
            if not is_answered():
                print(NO_DAEMON.format(socket=paths.socket_path()), file=sys.stderr)
        return 0


COMMAND: Final = Install()
