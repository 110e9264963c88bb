"""`gpuportion ps`: who holds a portion, and how much of it is in use."""

from __future__ import annotations

import argparse
import pwd
from collections.abc import Iterable
from typing import Any, Final

from gpuportion import client, sizes
from gpuportion.cli import table
from gpuportion.cli.command import Plain, add_json, print_json

COLUMNS: Final = (
    "CONTAINER",
    "NAME",
    "USER",
    "GPU",
    "GRANT",
    "USED",
    "PEAK",
    "COMPUTE",
    "ENFORCED-BY",
    "REFUSALS",
    "AGE",
)
NUMBERS: Final = ("GRANT", "USED", "PEAK", "COMPUTE", "REFUSALS", "AGE")
WAIT: Final = 10.0
SHORT_ID: Final = 12


class Ps(Plain):
    help = "list the containers and processes that hold a portion of a GPU"
    epilog = "One line for each GPU that a container has a portion of."

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        add_json(parser)

    def run(self, args: argparse.Namespace) -> int:
        answer = client.ask("ps", wait=WAIT).head
        if args.json:
            print_json(answer)
        else:
            print(table.render(COLUMNS, lines(answer["grants"]), NUMBERS))
        return 0


def lines(grants: Iterable[dict[str, Any]]) -> list[dict[str, str]]:
    """The table's lines, one for each GPU of each grant."""
    return [{**_of_grant(grant), **_of_gpu(gpu)} for grant in grants for gpu in grant["gpus"]]


def _of_grant(grant: dict[str, Any]) -> dict[str, str]:
    compute = grant.get("compute")
    return {
        "CONTAINER": table.printable(str(grant["container"]))[:SHORT_ID],
        "NAME": table.printable(str(grant.get("name") or "")),
        "USER": user(grant.get("user")),
        "COMPUTE": f"{compute} %" if compute else "",
        "ENFORCED-BY": str(grant["enforced_by"]),
        "REFUSALS": str(grant.get("refusals", "")),
        "AGE": table.age(grant["age_s"]),
    }


def _of_gpu(gpu: dict[str, Any]) -> dict[str, str]:
    return {
        "GPU": str(gpu["index"]),
        "GRANT": sizes.both(gpu["limit"]),
        "USED": sizes.mib(gpu["used"]),
        "PEAK": sizes.mib(gpu["peak"]),
    }


def user(uid: int | str | None) -> str:
    """A user's name; the number where there is none, nothing where it is not known."""
    if uid is None or isinstance(uid, str):
        return table.printable(uid or "")
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


COMMAND: Final = Ps()
