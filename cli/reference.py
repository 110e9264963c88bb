"""docs/cli.md, made of what `gpuportion --help` says: `python -m gpuportion.cli.reference > docs/cli.md`."""

from __future__ import annotations

import argparse
import os
from typing import Final

from gpuportion.__main__ import overview, parser_of
from gpuportion.cli import registry

WIDTH: Final = "100"
HEAD: Final = """\
# The command line

Made of `--help` by `python -m gpuportion.cli.reference`; a test holds it.

Every command ends with 0 when it is done, 1 when something was refused or failed, 2 for bad usage, 130 when
it was interrupted; `run` and `exec` become what they start, whose status it then is. Refusals go to stderr
and begin with a code, which [messages.md](messages.md) explains. `--json` prints sizes in bytes."""


def text() -> str:
    """The whole page."""
    os.environ["COLUMNS"] = WIDTH  # argparse wraps by it
    pages = [_page(name) for name in registry.MODULES]
    return "\n\n".join([HEAD, _block(overview()), *pages]) + "\n"


def _page(name: str) -> str:
    parser = parser_of(name, registry.load(name))
    helps = [one.format_help().rstrip() for one in (parser, *_actions(parser))]
    return "\n\n".join([f"## gpuportion {name}", *map(_block, helps)])


def _actions(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    """The parsers of `gpuportion sim start` and the like."""
    subparsers = (action.choices for action in parser._actions if isinstance(action.choices, dict))
    return [parser for choices in subparsers for parser in choices.values()]


def _block(lines: str) -> str:
    return f"```\n{lines}\n```"


if __name__ == "__main__":
    print(text(), end="")
