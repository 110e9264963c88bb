"""The table of named breakages (table/*.toml): reads it, and says what is wrong with it.

    name   what the product would do wrong
    file   where, from the root of the project
    old    the exact text that becomes `new`; it stands in the file once, or another place could be meant
    red    tests of which at least one must fail then: few, and quick ones

Knows nothing of builds.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TABLE: Final = Path(__file__).with_name("table")
FIELDS: Final = {"name", "file", "old", "new", "red"}


@dataclass(frozen=True)
class Breakage:
    """One entry of the table."""

    name: str
    file: str
    old: str
    new: str
    red: tuple[str, ...]

    def applied(self, text: str) -> str:
        """The broken text. ValueError where `old` is not in it exactly once."""
        found = text.count(self.old)
        if found != 1 or self.old == self.new:
            raise ValueError(f'"{self.name}": {self.file} has its old text {found} times, not once')
        return text.replace(self.old, self.new)


def load(table: Path = TABLE) -> list[Breakage]:
    """All of them. ValueError for an entry that is not whole."""
    found = []
    entries = [
        entry
        for file in sorted(table.glob("*.toml"))
        for entry in tomllib.loads(file.read_text())["breakage"]
    ]
    for entry in entries:
        if set(entry) != FIELDS or not entry["red"]:
            raise ValueError(f'"{entry.get("name")}" needs {", ".join(sorted(FIELDS))}, and no more')
        found.append(Breakage(**{**entry, "red": tuple(entry["red"])}))
    names = [one.name for one in found]
    if len(set(names)) < len(names):
        raise ValueError(f"named twice: {sorted({name for name in names if names.count(name) > 1})}")
    return found


def complaint(one: Breakage, root: Path) -> str:
    """Why this breakage means nothing in the tree at `root`; an empty string: it stands."""
    file = root / one.file
    if not file.is_file():
        return f'"{one.name}": there is no {one.file}'
    try:
        one.applied(file.read_text())
    except ValueError as problem:
        return str(problem)
    return next((f'"{one.name}": there is no {test}' for test in one.red if not _is_there(test, root)), "")


def _is_there(test: str, root: Path) -> bool:
    name, _, function = test.partition("::")
    file = root / name
    function = function.partition("[")[0].rpartition("::")[2]
    pattern = rf"\s*(async )?(def|class) {re.escape(function)}\b"
    return file.is_file() and (
        not function or re.search(f"^{pattern}", file.read_text(), re.MULTILINE) is not None
    )
