"""Plain aligned tables for terminals, and the forms that values have in them. Knows no command."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

UNKNOWN: Final = "-"
AGES: Final = (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1))


def render(columns: Sequence[str], rows: Iterable[Mapping[str, str]], right: Iterable[str] = ()) -> str:
    """Lines of two-space separated columns, `right` of them right-aligned; a missing value is a dash."""
    lines = [list(columns), *([row.get(column) or UNKNOWN for column in columns] for row in rows)]
    widths = [max(len(line[at]) for line in lines) for at in range(len(columns))]
    numbers = [column in set(right) for column in columns]
    return "\n".join(_line(line, widths, numbers) for line in lines)


def _line(cells: list[str], widths: list[int], numbers: list[bool]) -> str:
    aligned = (
        cell.rjust(width) if number else cell.ljust(width)
        for cell, width, number in zip(cells, widths, numbers, strict=True)
    )
    return "  ".join(aligned).rstrip()


def age(seconds: float) -> str:
    """`3s`, `12m`, `5h`, `2d`: the largest unit that it fills once."""
    for unit, length in AGES:
        if seconds >= length:
            return f"{int(seconds // length)}{unit}"
    return "0s"


def printable(text: str) -> str:
    """`text` without what could steer a terminal: names come from containers, and those may be hostile."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
