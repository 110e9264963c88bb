"""The table of mutants that may live (survivors.toml): each is told by its text, and argued in one line.

An entry is for one function's mutants of these very lines, or, without `in`, for every mutant whose change
matches a pattern. Numbers of mutants move with every edit, so they are not used. Knows nothing of mutmut.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TABLE: Final = Path(__file__).with_name("survivors.toml")


@dataclass(frozen=True)
class Argued:
    """One function's mutants: these lines become those."""

    function: str
    old: str
    new: str
    why: str

    def covers(self, function: str, old: str, new: str) -> bool:
        return (self.function, self.old, self.new) == (function, old, new)


@dataclass(frozen=True)
class Kind:
    """Mutants of one kind, wherever they are. `change` is matched against "old -> new", in one line."""

    change: re.Pattern[str]
    within: re.Pattern[str]
    why: str

    def covers(self, function: str, old: str, new: str) -> bool:
        text = f"{old} -> {new}".replace("\n", " ")
        return bool(self.change.fullmatch(text) and self.within.match(function))


def load(table: Path = TABLE) -> tuple[list[Argued], list[Kind]]:
    """ValueError for an entry without a reason."""
    read = tomllib.loads(table.read_text())
    argued = [Argued(one["in"], one["old"], one["new"], one["why"]) for one in read.get("argued", ())]
    kinds = [
        Kind(re.compile(one["change"]), re.compile(one.get("within", "")), one["why"])
        for one in read.get("kind", ())
    ]
    for why in [one.why for one in argued] + [kind.why for kind in kinds]:
        if len(why) < 12:
            raise ValueError(f"{why!r} is no reason")
    return argued, kinds


def unneeded(argued: Iterable[Argued], lived: Iterable[tuple[str, str, str]]) -> list[Argued]:
    """Entries for mutants that are killed, or are no longer made."""
    seen = set(lived)
    return [one for one in argued if (one.function, one.old, one.new) not in seen]
