"""`gpuportion sim`: simulated GPUs for machines that have none."""

from __future__ import annotations

import argparse
from typing import Final

from gpuportion.cli.command import Plain, add_json

DIRECTORY: Final = "/run/gpuportion-sim"
CDI_DIRECTORY: Final = "/var/run/cdi"


class Sim(Plain):
    help = "start, stop or show simulated GPUs"
    epilog = "gpuportion daemon --sim a100-80gb:2 does both, start them and use them."

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        actions = parser.add_subparsers(title="actions", dest="action", metavar="ACTION", required=True)
        start = actions.add_parser("start", help="make simulated GPUs and their CDI spec", allow_abbrev=False)
        start.add_argument("--gpus", metavar="BOARD[:N]", required=True, help="such as a100-80gb:2")
        start.add_argument(
            "--cdi-dir", metavar="DIR", default=CDI_DIRECTORY, help=f"default: {CDI_DIRECTORY}"
        )
        start.add_argument(
            "--random-costs", metavar="SEED", type=int, help="draw what a driver's own use costs"
        )
        stop = actions.add_parser("stop", help="remove them", allow_abbrev=False)
        status = actions.add_parser(
            "status", help="show them and who holds memory on them", allow_abbrev=False
        )
        add_json(status)
        for action in (start, stop, status):
            action.add_argument("--directory", metavar="DIR", default=DIRECTORY, help=f"default: {DIRECTORY}")

    def run(self, args: argparse.Namespace) -> int:
        return {"start": start, "stop": stop, "status": status}[args.action](args)


def start(args: argparse.Namespace) -> int:
    from gpuportion import simgpu

    costs = "random" if args.random_costs is not None else "usual"
    sim = simgpu.start(args.gpus, args.directory, cdi_dir=args.cdi_dir, costs=costs, seed=args.random_costs)
    print("\n".join(f"export {name}={value}" for name, value in sim.env().items()))
    return 0


def stop(args: argparse.Namespace) -> int:
    from gpuportion import simgpu

    simgpu.stop(args.directory)
    return 0


def status(args: argparse.Namespace) -> int:
    return 0


COMMAND: Final = Sim()
