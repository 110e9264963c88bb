"""Splits a command line: the command's own options, then what belongs to another program.

    gpuportion run --gpu-memory 4G --rm -it ubuntu nvidia-smi
                   ^ ours          ^ the engine's, untouched

argparse is never shown the second part. It has no way to stop at the first option that it does not know, and
what it does with a `--` has changed between versions of Python. Knows nothing of any command.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence


def own_options(parser: argparse.ArgumentParser) -> dict[str, bool]:
    """The parser's option strings; True for those that take a value."""
    actions = parser._actions
    return {name: action.nargs != 0 for action in actions for name in action.option_strings}


def split(argv: Sequence[str], options: Mapping[str, bool]) -> tuple[list[str], list[str]]:
    """(own, rest). A `--` between the two is dropped; else rest begins where no option of ours stands."""
    at = 0
    while at < len(argv):
        word = argv[at]
        if word == "--":
            return list(argv[:at]), list(argv[at + 1 :])
        name, equals, _ = word.partition("=")
        if name not in options:
            break
        at += 2 if options[name] and not equals else 1
    return list(argv[:at]), list(argv[at:])
