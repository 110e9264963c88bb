"""What `gpuportion doctor` finds: a line of its report, and where programs are looked for. Checks nothing itself."""

from __future__ import annotations

import os
import shutil
from typing import NamedTuple


class Finding(NamedTuple):
    """One line: `next` is what to do; of a finding that is ok, what one may want to do."""

    check: str
    ok: bool
    text: str
    next: str


class ProblemError(Exception):
    """What a check found to be wrong."""


def line(finding: Finding) -> str:
    word = "problem" if not finding.ok else "note" if finding.next else "ok"
    text, next = (words.replace("\n", "\n" + " " * 20) for words in (finding.text, finding.next))
    first = f"{word:<9}{finding.check:<11}{text}"
    return f"{first}\n{'':20}next: {next}" if next else first


def program(name: str) -> str | None:
    """Daemons lie in sbin, which is not in everybody's PATH."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin")
