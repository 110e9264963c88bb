"""`gpuportion config`: looks at the administrator's rules before they are in force, and shows those that are."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Final

from gpuportion import client
from gpuportion.cli.command import Plain, add_json, print_json
from gpuportion.errors import GpuportionError

WAIT: Final = 10.0
NOT_THERE: Final = "there is no {source}: nothing is restricted, and these are the defaults"


class Config(Plain):
    help = "check the administrator's rules, or show those in force"
    epilog = (
        "check reads a file (/etc/gpuportion/config.yaml, where none is named) and says what the daemon would say:\n"
        "a mistake with its line and key, and status 1. The daemon reads the file again at SIGHUP (systemctl reload\n"
        "gpuportiond). show asks the daemon."
    )

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        actions = parser.add_subparsers(dest="action", metavar="check|show", required=True)
        check = actions.add_parser("check", help="look for mistakes in a file")
        check.add_argument("file", nargs="?", metavar="FILE", help="default: /etc/gpuportion/config.yaml")
        show = actions.add_parser("show", help="print the rules that are in force")
        add_json(show)

    def run(self, args: argparse.Namespace) -> int:
        return _check(args.file) if args.action == "check" else _show(args.json)


def _check(path: str | None) -> int:
    from gpuportion.allocator import policy_file

    try:
        if path is None:
            policy_file.read_trusted(policy_file.PATH, needed=False)
        else:
            policy_file.read(path)
    except FileNotFoundError:
        raise GpuportionError("GP305", what=path, why="there is no such file") from None
    there = path or os.path.lexists(policy_file.PATH)
    print(f"{path or policy_file.PATH}: {'good' if there else 'not there, so nothing is restricted'}")
    return 0


def _show(as_json: bool) -> int:
    answer = client.ask("config", wait=WAIT).head
    if as_json:
        print_json(answer)
        return 0
    heading = "{source}, as the daemon keeps to it" if answer.get("found", True) else NOT_THERE
    print(f"# {heading.format(source=answer['source'])}\n{answer['text']}")
    if answer["trouble"]:
        print(f"the file has changed since and was not taken: {answer['trouble']}", file=sys.stderr)
    return 0


COMMAND: Final = Config()
