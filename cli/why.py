"""`gpuportion why`: the allocations that a container was refused last."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import Any, Final

from gpuportion import client, sizes
from gpuportion.cli import table
from gpuportion.cli.command import Plain, add_json, print_json

COLUMNS: Final = ("AGE", "GPU", "PID", "CALL", "ASKED", "USED", "GRANT")
NUMBERS: Final = ("AGE", "GPU", "PID", "ASKED", "USED", "GRANT")
WAIT: Final = 10.0


class Why(Plain):
    help = "show the allocations that a container was refused last"
    epilog = (
        "PID is the process's number inside of the container; USED is what the container held when it was refused.\n"
        "All of it is what the container's own processes noted."
    )

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("container", metavar="CONTAINER", help="its name, its id or how that begins")
        add_json(parser)

    def run(self, args: argparse.Namespace) -> int:
        answer = client.ask("why", wait=WAIT, container=args.container).head
        if args.json:
            print_json(answer)
        else:
            print(said(answer))
        return 0


def said(answer: dict[str, Any]) -> str:
    """The table, or a sentence where there is nothing to show."""
    name = table.printable(str(answer["name"] or answer["container"][:12]))
    if answer.get("damaged"):
        return f"nothing can be said of {name}: its ledger is damaged ({answer['damaged']})"
    if not answer["refusals"]:
        return f"{name} was refused nothing"
    return table.render(COLUMNS, lines(answer["refusals"]), NUMBERS)


def lines(refusals: Iterable[dict[str, Any]]) -> list[dict[str, str]]:
    return [_line(one) for one in refusals]


def _line(one: dict[str, Any]) -> dict[str, str]:
    return {
        "AGE": table.age(one["age_s"]),
        "GPU": "" if one["gpu"] is None else str(one["gpu"]),
        "PID": str(one["pid"]),
        "CALL": table.printable(str(one["call"])),
        "ASKED": sizes.mib(one["asked"]),
        "USED": sizes.mib(one["used"]),
        "GRANT": sizes.mib(one["grant"]),
    }


COMMAND: Final = Why()
