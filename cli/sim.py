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
from gpuportion.simgpu import mig
from gpuportion.simgpu.behaviour import DRIVER_VERSION
from gpuportion.simgpu.simulation import CDI_DIR, DIRECTORY

COLUMNS: Final = ("GPU", "BOARD", "MODEL", "TOTAL", "RESERVED", "USED", "PROCESSES", "MIG")
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
        for name in ("start", "stop", "refresh"):
            added[name].add_argument("--cdi-dir", metavar="DIR", default=CDI_DIR, help=f"default: {CDI_DIR}")
        _add_start(added["start"])
        added["reset"].add_argument("--gpu", metavar="INDEX", type=int, required=True, help="which one")
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
    parser.add_argument("--mig", action="store_true", help="switch MIG on, on all boards that have it")
    parser.add_argument("--driver", metavar="VERSION", default=DRIVER_VERSION, help="default: %(default)s")


def start(args: argparse.Namespace) -> None:
    """On stdout what a shell has to be told, so that it can be evaluated."""
    told = simgpu.Behaviour(mig=args.mig, driver=args.driver)
    sim = simgpu.start(
        args.gpus, args.directory, cdi_dir=args.cdi_dir, seed=args.random_costs, behaviour=told
    )
    for note in sim.notes:
        print(f"gpuportion: {note}", file=sys.stderr)
    for name, value in sim.env().items():
        print(f"export {name}={shlex.quote(value)}")


def stop(args: argparse.Namespace) -> None:
    simgpu.stop(args.directory, args.cdi_dir)


def reset(args: argparse.Namespace) -> None:
    found = _there(args.directory)
    if not 0 <= args.gpu < len(found.sim.devices):
        why = f"is none of the simulated GPUs: 0 to {len(found.sim.devices) - 1}."
        raise GpuportionError("GP107", key="--gpu", value=args.gpu, why=why, exit_status=2)
    mig.reset(found.sim.state, args.gpu)


def reboot(args: argparse.Namespace) -> None:
    mig.reboot(_there(args.directory).sim.state)


def refresh(args: argparse.Namespace) -> None:
    simgpu.refresh(_there(args.directory).sim, args.cdi_dir)


def _there(directory: str) -> simgpu.Status:
    found = simgpu.status(directory)
    if found is None:
        why = "start it: gpuportion sim start --gpus a100-80gb:2"
        raise GpuportionError("GP305", what=f"a simulation in {directory}", why=why)
    return found


def status(args: argparse.Namespace) -> None:
    found = _there(args.directory)
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
        parts = [part for part in mig.devices(found.sim.state) if part.device == device.index]
        current, pending = mig.modes(found.sim.state, device.index)
        shown = {
            name: getattr(device, name) for name in ("index", "uuid", "board", "name", "total", "reserved")
        }
        divided = {"mig": current, "mig_pending": pending, "mig_devices": [_part(part) for part in parts]}
        rows.append({**shown, "used": used, "processes": processes, **divided})
    return rows


def _part(part: mig.MigDevice) -> dict[str, Any]:
    gi_minor, ci_minor = part.minors
    shown = {name: getattr(part, name) for name in ("index", "uuid", "profile", "start", "gi", "ci")}
    return {**shown, "gi_minor": gi_minor, "ci_minor": ci_minor}


def _line(row: dict[str, Any]) -> dict[str, str]:
    amounts = {name: sizes.mib(row[name.lower()]) for name in ("TOTAL", "RESERVED", "USED")}
    processes = str(len(row["processes"]))
    return {
        **amounts,
        "GPU": str(row["index"]),
        "BOARD": row["board"],
        "MODEL": row["name"],
        "PROCESSES": processes,
        "MIG": _mig(row),
    }


def _mig(row: dict[str, Any]) -> str:
    """`off`, `on`, what a reset would make of it, and the MIG devices' profiles."""
    now, then = ("on" if row[key] else "off" for key in ("mig", "mig_pending"))
    mode = now if now == then else f"{now}, {then} after a reset"
    return " ".join([mode, *(part["profile"] for part in row["mig_devices"])])


ACTIONS: Final[dict[str, tuple[str, Callable[[argparse.Namespace], None]]]] = {
    "start": ("make simulated GPUs", start),
    "stop": ("remove them", stop),
    "reset": ("reset a GPU: its MIG mode is what was set, and it has no instances", reset),
    "reboot": (
        "do to all GPUs what a reboot does: no instances, and MIG mode kept before Hopper only",
        reboot,
    ),
    "refresh": ("write device nodes and CDI specification anew, for the MIG devices that there are", refresh),
    "status": ("show them and what is in use", status),
}

COMMAND: Final = Sim()
