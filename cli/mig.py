"""`gpuportion mig`: the MIG profiles that GPUs offer, the instances that there are, and an end to idle ones."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from gpuportion import client, sizes
from gpuportion.cli import table
from gpuportion.cli.command import Plain, add_json, print_json

PROFILES: Final = ("GPU", "MODEL", "PROFILE", "MEMORY", "COMPUTE", "SLICES", "STARTS", "MOST", "ROOM")
INSTANCES: Final = ("GPU", "GI", "PROFILE", "SLICES", "MEMORY", "STATE", "CONTAINER", "NAME", "IDLE", "UUID")
NUMBERS: Final = ("MEMORY", "COMPUTE", "MOST", "ROOM", "IDLE")
WAIT: Final = 10.0
REMOVING: Final = 60.0
"""Seconds. Destroying an instance takes one, and they go one by one."""
SHORT_ID: Final = 12


class Mig(Plain):
    help = "list MIG profiles and instances; remove idle instances"
    epilog = (
        "An instance whose container has ended stays, idle, until the next one of its profile takes it or its room\n"
        "is needed; gc removes idle ones at once. What others made (state: foreign) is never removed.\n"
        "Which GPUs serve by MIG: gpuportion node set-role."
    )

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        actions = parser.add_subparsers(title="actions", dest="action", metavar="ACTION", required=True)
        for name, (help, _) in ACTIONS.items():
            add_json(actions.add_parser(name, help=help, description=f"{help}.", allow_abbrev=False))

    def run(self, args: argparse.Namespace) -> int:
        ACTIONS[args.action][1](args.json)
        return 0


def profiles(as_json: bool) -> None:
    answer = client.ask("mig-profiles", wait=WAIT).head
    if as_json:
        print_json(answer)
    else:
        print(table.render(PROFILES, profile_lines(answer["gpus"]), NUMBERS))
        for note in profile_notes(answer["gpus"]):
            print(note)


def instances(as_json: bool) -> None:
    answer = client.ask("mig-list", wait=WAIT).head
    if as_json:
        print_json(answer)
    else:
        print(table.render(INSTANCES, map(instance_line, answer["instances"]), NUMBERS))


def collect(as_json: bool) -> None:
    answer = client.ask("mig-gc", wait=REMOVING).head
    if as_json:
        print_json(answer)
        return
    for one in answer["removed"]:
        print(f"removed {named(one)}")
    for one in answer["kept"]:
        print(f"kept {named(one)}: {table.printable(str(one['why']))}")
    if not answer["removed"] and not answer["kept"]:
        print("no idle instance is there")


def profile_lines(gpus: Iterable[Mapping[str, Any]]) -> list[dict[str, str]]:
    """A line for each profile of each GPU; one for a GPU that offers none."""
    found = []
    for gpu in gpus:
        here = {"GPU": str(gpu["index"]), "MODEL": table.printable(str(gpu["model"]))}
        found += [{**here, **_of_profile(profile)} for profile in gpu["profiles"] or [{}]]
    return found


def profile_notes(gpus: Iterable[Mapping[str, Any]]) -> list[str]:
    """Why a GPU has room for nothing at all."""
    return [
        f"GPU {gpu['index']} has no room: {table.printable(gpu['note'])}" for gpu in gpus if gpu.get("note")
    ]


def _of_profile(profile: Mapping[str, Any]) -> dict[str, str]:
    if not profile:
        return {}
    return {
        "PROFILE": str(profile["name"]),
        "MEMORY": sizes.mib(profile["memory"]),
        "COMPUTE": str(profile["compute"]),
        "SLICES": str(profile["size"]),
        "STARTS": ",".join(str(start) for start in profile["starts"]),
        "MOST": str(profile["most"]),
        "ROOM": _known(profile["room"]),
    }


def instance_line(one: Mapping[str, Any]) -> dict[str, str]:
    """What is not known is a dash."""
    idle = one.get("idle_s")
    return {
        "GPU": str(one["gpu"]),
        "GI": _known(one.get("gi")),
        "PROFILE": table.printable(_known(one.get("profile"))),
        "SLICES": _slices(one),
        "MEMORY": "" if one.get("memory") is None else sizes.mib(one["memory"]),
        "STATE": str(one["state"]),
        "CONTAINER": table.printable(_known(one.get("container")))[:SHORT_ID],
        "NAME": table.printable(_known(one.get("name"))),
        "IDLE": "" if idle is None else table.age(idle),
        "UUID": _known(one.get("uuid")),
    }


def named(one: Mapping[str, Any]) -> str:
    """`2g.10gb at 0 of GPU 0`."""
    return f"{table.printable(_known(one.get('profile')))} at {one['start']} of GPU {one['gpu']}"


def _slices(one: Mapping[str, Any]) -> str:
    """`0-1`: the memory slices that it has."""
    start, size = one.get("start"), one.get("size")
    if start is None or not size:
        return ""
    return str(start) if size == 1 else f"{start}-{start + size - 1}"


def _known(value: object) -> str:
    return "" if value is None else str(value)


ACTIONS: Final[dict[str, tuple[str, Callable[[bool], None]]]] = {
    "profiles": ("list what the GPUs offer, and how many more of each there is room for", profiles),
    "list": ("list the instances, who has them, and which are idle since when", instances),
    "gc": ("remove the idle instances at once", collect),
}

COMMAND: Final = Mig()
