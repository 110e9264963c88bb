"""`gpuportion uninstall`: takes back from an engine's configuration what `gpuportion install` put there."""

from __future__ import annotations

import argparse
from typing import Final

from gpuportion.cli import install
from gpuportion.cli.command import Plain
from gpuportion.shim.engines import installation
from gpuportion.shim.engines.table import ENGINES


class Uninstall(Plain):
    help = "take the runtime gpuportion out of a container engine's configuration"
    epilog = (
        "The file is as it was before, byte for byte, if nobody edited it in between; else only our keys go."
    )

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        install.add_options(parser)

    def run(self, args: argparse.Namespace) -> int:
        edits = ENGINES[args.engine].edits(install.config(args), "", False)
        install.carry_out(installation.plan_uninstall(args.engine, edits), args)
        return 0


COMMAND: Final = Uninstall()
