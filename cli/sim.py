"""`gpuportion sim`: simulated GPUs for machines that have none."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable
from typing import Any, Final

from gpuportion import simgpu, sizes
from gpuportion.cli import table
from gpuportion.cli.command import Plain, add_json, print_json
from gpuportion.errors import GpuportionError
from gpuportion.simgpu.simulation import CDI_DIR, DIRECTORY

COLUMNS: Final = ("GPU", "BOARD", "MODEL", "TOTAL", "RESERVED", "USED", "PROCESSES")
NUMBERS: Final = ("TOTAL", "RESERVED", "USED", "PROCESSES")


class Sim(Plain):
    help = "start, stop or show simulated GPUs"
    epilog = (
        "They need no process: they are a state file, the driver's libraries and a CDI specification.\n"
        "gpuportion daemon --sim a100-80gb:2 makes its own."
    )

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        actions = parser.add_subparsers(title="actions", dest="action", metavar="ACTION", required=True)
        added = {
            name: actions.add_parser(name, help=help, description=f"{help}.", allow_abbrev=False)
            for name, (help, _) in ACTIONS.items()
        }
        for action in added.values():
            action.add_argument("--directory", metavar="DIR", default=DIRECTORY, help=f"default: {DIRECTORY}")
        for name in ("start", "stop"):
            added[name].add_argument("--cdi-dir", metavar="DIR", default=CDI_DIR, help=f"default: {CDI_DIR}")
        _add_start(added["start"])
        add_json(added["status"])

    def run(self, args: argparse.Namespace) -> int:
        ACTIONS[args.action][1](args)
        return 0


def _add_start(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--gpus", metavar="BOARD[:N]", required=True, help="such as a100-80gb:2 or t4-16gb")
    parser.add_argument(
        "--random-costs",
        metavar="SEED",
        type=int,
        help="draw from SEED what memory costs beyond what is asked for",
    )


def start(args: argparse.Namespace) -> None:
    """On stdout what a shell has to be told, so that it can be evaluated."""
    sim = simgpu.start(args.gpus, args.directory, cdi_dir=args.cdi_dir, seed=args.random_costs)
    for note in sim.notes:
        print(f"gpuportion: {note}", file=sys.stderr)
    for name, value in sim.env().items():
        print(f"export {name}={shlex.quote(value)}")


def stop(args: argparse.Namespace) -> None:
    simgpu.stop(args.directory, args.cdi_dir)


def status(args: argparse.Namespace) -> None:
    found = simgpu.status(args.directory)
    if found is None:
        why = "start it: gpuportion sim start --gpus a100-80gb:2"
        raise GpuportionError("GP305", what=f"a simulation in {args.directory}", why=why)
    rows = gpus(found)
    if args.json:
        print_json({"directory": found.sim.directory, "gpus": rows})
    else:
        print(table.render(COLUMNS, map(_line, rows), NUMBERS))


def gpus(found: simgpu.Status) -> list[dict[str, Any]]:
    """One row a GPU, sizes in bytes; pids are those of the holders' own namespaces."""
    rows = []
    for device in found.sim.devices:
        holders = [holder for holder in found.holders if holder.device == device.index]
        processes = [{"pid": holder.pid, "used": holder.bytes} for holder in holders]
        used = sum(holder.bytes for holder in holders)
        shown = {
            name: getattr(device, name) for name in ("index", "uuid", "board", "name", "total", "reserved")
        }
        rows.append({**shown, "used": used, "processes": processes})
    return rows


def _line(row: dict[str, Any]) -> dict[str, str]:
    amounts = {name: sizes.mib(row[name.lower()]) for name in ("TOTAL", "RESERVED", "USED")}
    processes = str(len(row["processes"]))
    return {
        **amounts,
        "GPU": str(row["index"]),
        "BOARD": row["board"],
        "MODEL": row["name"],
        "PROCESSES": processes,
    }


ACTIONS: Final[dict[str, tuple[str, Callable[[argparse.Namespace], None]]]] = {
    "start": ("make simulated GPUs", start),
    "stop": ("remove them", stop),
    "status": ("show them and what is in use", status),
}

COMMAND: Final = Sim()
