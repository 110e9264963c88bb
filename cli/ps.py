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
FINDINGS: Final = ("CONTAINER", "NAME", "GPU", "HELD", "GRANT", "FOR", "ACTION", "PROCESSES")
FINDING_NUMBERS: Final = ("HELD", "GRANT", "FOR")
WAIT: Final = 10.0
SHORT_ID: Final = 12


class Ps(Plain):
    help = "list the containers and processes that hold a portion of a GPU"
    epilog = (
        "One line for each GPU that a container has a portion of. Below it, where there are any: processes of\n"
        "containers that hold memory of a GPU without a grant, and grants that are exceeded."
    )

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        add_json(parser)

    def run(self, args: argparse.Namespace) -> int:
        answer = client.ask("ps", wait=WAIT).head
        if args.json:
            print_json(answer)
        else:
            print(table.render(COLUMNS, lines(answer["grants"]), NUMBERS))
            if found := findings(answer.get("findings", ())):
                print("\nWithout a grant, or beyond it:")
                print(table.render(FINDINGS, found, FINDING_NUMBERS))
            if more := left_out(answer):
                print(f"\n{more}")
        return 0


def lines(grants: Iterable[dict[str, Any]]) -> list[dict[str, str]]:
    """The table's lines, one for each GPU of each grant."""
    return [{**_of_grant(grant), **_of_gpu(gpu)} for grant in grants for gpu in grant["gpus"]]


def left_out(answer: dict[str, Any]) -> str:
    """What is said of that for which one answer had no room."""
    count = answer.get("left_out", 0)
    return f"{count} more are not shown: one answer has no room for them." if count else ""


def findings(found: Iterable[dict[str, Any]]) -> list[dict[str, str]]:
    """The lines of what the audit found."""
    return [_finding(one) for one in found]


def _finding(one: dict[str, Any]) -> dict[str, str]:
    named = [
        f"{process['pid']} {table.printable(str(process['name']))}".strip() for process in one["processes"]
    ]
    return {
        "CONTAINER": table.printable(str(one["container"]))[:SHORT_ID],
        "NAME": table.printable(str(one["name"])),
        "GPU": str(one["index"]),
        "HELD": sizes.gb(one["held"]),
        "GRANT": sizes.gb(one["limit"]) if one["kind"] == "over" else "none",
        "FOR": table.age(one["since_s"]),
        "ACTION": str(one["action"]),
        "PROCESSES": ", ".join(named),
    }


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
