"""docs/cli.md, made of what `gpuportion --help` says: `python -m gpuportion.cli.reference > docs/cli.md`."""

from __future__ import annotations

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
and begin with
a code, which [messages.md](messages.md) explains. `--json` prints sizes in bytes."""


def text() -> str:
    """The whole page."""
    os.environ["COLUMNS"] = WIDTH  # argparse wraps by it
    pages = [_page(name) for name in registry.MODULES]
    return "\n\n".join([HEAD, _block(overview()), *pages]) + "\n"


def _page(name: str) -> str:
    return f"## gpuportion {name}\n\n{_block(parser_of(name, registry.load(name)).format_help().rstrip())}"


def _block(lines: str) -> str:
    return f"```\n{lines}\n```"


if __name__ == "__main__":
    print(text(), end="")
