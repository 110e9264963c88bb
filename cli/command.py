"""What commands are by default, so that each says only what is its own."""

from __future__ import annotations

import argparse
import json
from typing import Any


class Plain:
    """A command without arguments; see `registry.Command`."""

    help = ""
    usage = ""
    epilog = ""
    takes_command = False

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        """Nothing to add."""


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON, with sizes in bytes")


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=2))
