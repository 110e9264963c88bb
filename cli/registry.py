"""The commands: names in the order of `gpuportion --help`, each with the module that it lives in.

A command's module is imported only when it runs, or for the list of them all: `gpuportion ps` should not pay
for the demo. `gpuportion.__main__` is the only caller.
"""

from __future__ import annotations

import argparse
from importlib import import_module
from typing import Final, Protocol

MODULES: Final = {
    "run": "gpuportion.cli.run",
    "exec": "gpuportion.cli.exec",
    "ps": "gpuportion.cli.ps",
    "why": "gpuportion.cli.why",
    "update": "gpuportion.cli.update",
    "node": "gpuportion.cli.node",
    "mig": "gpuportion.cli.mig",
    "config": "gpuportion.cli.config",
    "daemon": "gpuportion.cli.daemon",
    "install": "gpuportion.cli.install",
    "uninstall": "gpuportion.cli.uninstall",
    "doctor": "gpuportion.cli.doctor",
    "sim": "gpuportion.cli.sim",
    "demo": "gpuportion.cli.demo",
}


class Command(Protocol):
    """What a command's module holds as COMMAND."""

    help: str
    """One line, for the list of all commands."""
    usage: str
    """What follows the command's name in its usage line; "" lets argparse say it."""
    epilog: str
    """Further text below the options: examples, exit statuses."""
    takes_command: bool
    """What follows the command's own options belongs to another program, and comes as `args.rest`, a list."""

    def arguments(self, parser: argparse.ArgumentParser) -> None: ...

    def run(self, args: argparse.Namespace) -> int:
        """The exit status. `args.parser` is the command's parser, for usage errors."""


def load(name: str) -> Command:
    command: Command = import_module(MODULES[name]).COMMAND
    return command
