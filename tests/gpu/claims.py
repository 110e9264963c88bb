"""What a part of the suite says: claims that hold or don't, figures, and what could not be run. A line of JSON each,
written as soon as it is known, so that a part that is cut short has still said what it saw.

Judges nothing itself, and knows nothing of GPUs.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import IO, Any, Final

OK: Final = "ok"
FALSE: Final = "FALSE"
SKIPPED: Final = "skipped"
FIGURE: Final = "figure"
VERDICTS: Final = (OK, FALSE, SKIPPED, FIGURE)
WIDTHS: Final = (66, 58)


@dataclass(frozen=True)
class Said:
    """One line. `wanted`: what it is held against, or a remark on a figure."""

    part: str
    what: str
    measured: str
    wanted: str
    verdict: str
    value: Any = None
    evidence: list[str] = field(default_factory=list)

    def row(self) -> str:
        """As a line of the table."""
        held_against = f"  ({self.wanted})" if self.wanted else ""
        return f"{self.what:{WIDTHS[0]}} {self.measured + held_against:{WIDTHS[1]}} {self.verdict}"


class Report:
    """What one part says, to `out`."""

    def __init__(self, part: str, out: IO[str] = sys.stdout) -> None:
        self.part = part
        self._out = out

    def claim(
        self,
        what: str,
        holds: bool,
        measured: object,
        wanted: object = "",
        *,
        value: Any = None,
        evidence: Iterable[str] = (),
    ) -> bool:
        """`evidence`: lines that tell why, kept where it does not hold."""
        told = [] if holds else [line for text in evidence for line in text.splitlines()]
        self._say(what, measured, wanted, OK if holds else FALSE, value, told)
        return holds

    def figure(self, what: str, measured: object, remark: object = "", *, value: Any = None) -> None:
        self._say(what, measured, remark, FIGURE, value, [])

    def skip(self, what: str, why: str) -> None:
        self._say(what, why, "", SKIPPED, None, [])

    def _say(
        self, what: str, measured: object, wanted: object, verdict: str, value: Any, evidence: list[str]
    ) -> None:
        said = Said(self.part, what, str(measured), str(wanted), verdict, value, evidence)
        print(json.dumps(dataclasses.asdict(said)), file=self._out, flush=True)


def parse(line: str) -> Said:
    """A line of a part. ValueError: it is none (a library has written to its standard output)."""
    fields = json.loads(line)
    if not isinstance(fields, dict) or fields.get("verdict") not in VERDICTS:
        raise ValueError(line)
    return Said(**fields)


def count(said: Iterable[Said]) -> Mapping[str, int]:
    """How many of each verdict."""
    totals = dict.fromkeys(VERDICTS, 0)
    for each in said:
        totals[each.verdict] += 1
    return totals
