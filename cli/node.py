"""`gpuportion node`: the GPUs of this node, what of each can still be granted, and in which way each serves."""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Iterable, Mapping
from typing import Any, Final

from gpuportion import client, paths, sizes
from gpuportion.cli import table
from gpuportion.cli.command import Plain, add_json, print_json
from gpuportion.errors import GpuportionError

COLUMNS: Final = ("GPU", "MODEL", "ROLE", "TOTAL", "RESERVED", "GRANTED", "FREE", "USED", "MIG", "HEALTH")
SIZES: Final = ("TOTAL", "RESERVED", "GRANTED", "FREE", "USED")
WAIT: Final = 10.0
SWITCHING: Final = 60.0
"""Seconds; an older board is reset when its MIG mode is switched, and idle instances go one by one."""
AFTER: Final = "after a reset"
"""In what the daemon says of a MIG mode that is another then."""

ROLE_ACTIONS: Final = {  # action -> (operation of the daemon, help)
    "set-role": ("set-role", "let GPUs serve by MIG instances, made on demand, and not by fractions"),
    "remove-role": ("remove-role", "let GPUs serve by fractions again"),
}


class Node(Plain):
    help = "list the GPUs of this node and what of each can still be granted; give them their role"
    usage = "[-h] [--json] [show | set-role | remove-role] ..."
    epilog = (
        "TOTAL is what the driver reports; RESERVED is the driver's own, the margin, and what processes\n"
        "without a grant hold; FREE can still be granted; USED is in use now, by whomever. On a GPU that serves by\n"
        "MIG, FREE is the largest instance that it has room for.\n\n"
        "  gpuportion node set-role --mig-enabled --gpu 0 1\n"
        "  gpuportion node remove-role --mig-enabled"
    )

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        add_json(parser)
        actions = parser.add_subparsers(
            title="actions", dest="action", metavar="ACTION", required=False, prog=parser.prog
        )
        show = actions.add_parser("show", help="list them; so does no action", allow_abbrev=False)
        _add_json_again(show)
        for name, (_, help) in ROLE_ACTIONS.items():
            usage = f"{parser.prog} {name} [-h] [--json] --mig-enabled [NODE] [--gpu GPU ...]"
            _add_role(
                actions.add_parser(name, usage=usage, help=help, description=f"{help}.", allow_abbrev=False)
            )

    def run(self, args: argparse.Namespace) -> int:
        if args.action in ROLE_ACTIONS:
            return _change(args)
        answer = client.ask("node", wait=WAIT).head
        if args.json:
            print_json(answer)
        else:
            print(table.render(COLUMNS, lines(answer["gpus"]), SIZES))
            for note in notes(answer["gpus"]):
                print(note)
        return 0


def _add_json_again(parser: argparse.ArgumentParser) -> None:
    """Also behind the action, without taking back what stood before it."""
    text = "print JSON, with sizes in bytes"
    parser.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help=text)


def _add_role(parser: argparse.ArgumentParser) -> None:
    _add_json_again(parser)
    parser.add_argument("--mig-enabled", action="store_true", required=True, help="the role; there is one")
    parser.add_argument("node", nargs="?", metavar="NODE", help="this host's name, to be sure of it")
    parser.add_argument(
        "--gpu",
        action="extend",
        nargs="+",
        metavar="GPU",
        default=[],
        help="index, UUID or model glob; without it, all that can have the role",
    )


def _change(args: argparse.Namespace) -> int:
    refuse_other_host(args.node, os.uname().nodename)
    words = [word.strip() for given in args.gpu for word in given.split(",")]
    answer = client.ask(ROLE_ACTIONS[args.action][0], wait=SWITCHING, role="mig", gpus=words).head
    if args.json:
        print_json(answer)
    else:
        for gpu in answer["gpus"]:
            print(told(gpu, reset=simulated_reset(gpu) if AFTER in gpu["mig"] else ""))
    return 0


def refuse_other_host(name: str | None, here: str) -> None:
    """GP112 for a NODE that is not this host: a daemon changes its own node's GPUs alone."""
    known = {here, here.partition(".")[0], "localhost"}
    if name is not None and name.lower() not in {one.lower() for one in known}:
        why = f"this host is {here}. Run it there: ssh {name} gpuportion node ..."
        raise GpuportionError("GP112", what=f"GPUs of {name}", why=why)


def told(gpu: Mapping[str, Any], reset: str = "") -> str:
    """`GPU 0 (NVIDIA A100-SXM4-40GB) has the role mig; MIG mode is on`, and what has to be done, where it is not.
    `reset`: how a simulated one is reset; the daemon's note says how a real one is."""
    mode, model = str(gpu["mig"]), table.printable(str(gpu["model"]))
    note = f": {reset}" if reset else f"; {gpu['note']}" if gpu.get("note") else ""
    if note and not reset:
        mode = mode.partition(",")[0]  # the note says what it is after a reset
    return f"GPU {gpu['index']} ({model}) has the role {gpu['role']}; MIG mode is {mode}{note}"


def simulated_reset(gpu: Mapping[str, Any]) -> str:
    """The command that resets this GPU, if it is a simulated one of this daemon's, or the usual; else ""."""
    from gpuportion.simgpu import simulation

    for directory in (f"{paths.run_dir()}/sim", simulation.DIRECTORY):
        found = simulation.status(directory)
        for device in found.sim.devices if found else ():
            if device.uuid == gpu["uuid"]:
                where = "" if directory == simulation.DIRECTORY else f" --directory {shlex.quote(directory)}"
                return f"gpuportion sim reset --gpu {device.index}{where}"
    return ""


def lines(gpus: Iterable[dict[str, Any]]) -> list[dict[str, str]]:
    return [_line(gpu) for gpu in gpus]


def notes(gpus: Iterable[dict[str, Any]]) -> list[str]:
    """What the table has no column for: memory in use that the driver lists no process for."""
    told = "unaccounted: in use, and the driver lists no process for it"
    return [
        f"GPU {gpu['index']}: {sizes.gb(gpu['unaccounted'])} {told}" for gpu in gpus if gpu.get("unaccounted")
    ]


def _line(gpu: dict[str, Any]) -> dict[str, str]:
    reserved = gpu["reserved"] + gpu.get("unmanaged", 0) + gpu.get("margin", 0)
    shown = {name: sizes.gb(gpu[name.lower()]) for name in SIZES}
    return {
        **shown,
        "GPU": str(gpu["index"]),
        "MODEL": table.printable(str(gpu["model"])),
        "ROLE": str(gpu["role"]),
        "RESERVED": sizes.gb(reserved),
        "MIG": str(gpu.get("mig") or ""),
        "HEALTH": str(gpu["health"]),
    }


COMMAND: Final = Node()
