"""`gpuportion node`: the GPUs of this node, and what of each can still be granted."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import Any, Final

from gpuportion import client, sizes
from gpuportion.cli import table
from gpuportion.cli.command import Plain, add_json, print_json

COLUMNS: Final = ("GPU", "MODEL", "ROLE", "TOTAL", "RESERVED", "GRANTED", "FREE", "USED", "MIG", "HEALTH")
SIZES: Final = ("TOTAL", "RESERVED", "GRANTED", "FREE", "USED")
WAIT: Final = 10.0


class Node(Plain):
    help = "list the GPUs of this node and what of each can still be granted"
    usage = "[-h] [show] [--json]"
    epilog = (
        "TOTAL is what the driver reports; RESERVED is the driver's own, the margin, and what processes\n"
        "without a grant hold; FREE can still be granted; USED is in use now, by whomever."
    )

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("action", nargs="?", choices=["show"], default="show", help="the only one so far")
        add_json(parser)

    def run(self, args: argparse.Namespace) -> int:
        answer = client.ask("node", wait=WAIT).head
        if args.json:
            print_json(answer)
        else:
            print(table.render(COLUMNS, lines(answer["gpus"]), SIZES))
        return 0


def lines(gpus: Iterable[dict[str, Any]]) -> list[dict[str, str]]:
    return [_line(gpu) for gpu in gpus]


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
