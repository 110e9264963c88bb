"""What installing does to an engine's files, and how it is undone: planned as values, then written.

An engine is a list of edits. Each takes a file's text to the text with us in it, and back out of it; None
stands for "no such file". What a file was before us is remembered in a record, so that `uninstall` gives back
the very bytes if nobody edited in between, and else takes out exactly what is ours. Knows no engine.

    /var/lib/gpuportion/install/<engine>.json   the records; GPUPORTION_STATE_DIR moves the folder above
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Final

from gpuportion import paths
from gpuportion.errors import GpuportionError
from gpuportion.shim.engines import config_file

RUNTIME: Final = "gpuportion"
"""Our name among an engine's runtimes."""
HEAD: Final = "# Written by `gpuportion install`; `gpuportion uninstall` removes it.\n"
"""How a file begins that is ours alone."""


@dataclass(frozen=True, slots=True)
class Record:
    """What one installation did to one file: enough to undo it. Texts are the file's; None: there was none."""

    config: str
    before: str | None
    after: str | None


@dataclass(frozen=True, slots=True)
class Change:
    """What a file is and what it would be. `record` goes with it; None: we leave the file."""

    config: str
    before: str | None
    after: str | None
    record: Record | None

    @property
    def diff(self) -> str:
        """As `diff -u` prints it; empty: nothing to do."""
        old, new = (_lines(text) for text in (self.before, self.after))
        here, there = (self.config if text is not None else "/dev/null" for text in (self.before, self.after))
        return "".join(difflib.unified_diff(old, new, here, there))

    @property
    def done(self) -> str:
        """What a user is told once it is so."""
        if self.after == self.before:
            return f"{self.config} is as it should be: nothing to do"
        verb = "removed" if self.after is None else "created" if self.before is None else "changed"
        return f"{verb} {self.config}"


@dataclass(frozen=True, slots=True)
class Edit:
    """One file: `put` gives its text with us in it, `take` the text without us, by the record if there is one."""

    config: str
    put: Callable[[str | None], str | None]
    take: Callable[[str | None, Record | None], str | None]


def of_our_own(config: str, text: Callable[[], str | None]) -> Edit:
    """The edit of a file that is ours alone: it comes and goes as a whole."""
    return Edit(config, lambda _: text(), lambda _, __: None)


def plan_install(engine: str, edits: Sequence[Edit], state_dir: str | None = None) -> list[Change]:
    """What writing would put into each file.

    A record's `before` is what `take` gives now, so that installing twice, or over somebody's edit, still
    undoes all of ours and nothing else.
    """
    return [_putting(edit, read(edit.config), recorded(engine, state_dir, edit.config)) for edit in edits]


def _putting(edit: Edit, text: str | None, record: Record | None) -> Change:
    after = edit.put(text)
    return Change(edit.config, text, after, Record(edit.config, edit.take(text, record), after))


def plan_uninstall(engine: str, edits: Sequence[Edit], state_dir: str | None = None) -> list[Change]:
    """What writing would take out of each file, in the other order: nothing names a file that is gone."""
    texts = [(edit, read(edit.config)) for edit in reversed(edits)]
    return [
        Change(edit.config, text, edit.take(text, recorded(engine, state_dir, edit.config)), None)
        for edit, text in texts
    ]


def apply(engine: str, changes: Sequence[Change], state_dir: str | None = None) -> list[str]:
    """Write the files; what was done, in lines for the user."""
    differing = [change for change in changes if change.after != change.before]
    records = [change.record for change in changes if change.record is not None]
    # Records go first: a crash in between leaves one that matches no file, and so only names what is ours.
    if differing and records:
        remember(engine, state_dir, records)
    for change in differing:
        write(change.config, change.after)
    if not records:
        forget(engine, state_dir)
    return [change.done for change in differing or changes]


def read(config: str) -> str | None:
    """The file's text. GpuportionError GP307 if it is none, GP308 as config_file.read."""
    data = config_file.read(config)
    try:
        return None if data is None else data.decode()
    except UnicodeDecodeError as problem:
        line = data.count(b"\n", 0, problem.start) + 1 if data else 1
        why = "it is not UTF-8 text. Mend it first."
        raise GpuportionError("GP307", source=config, where=f"line {line}", why=why) from None


def write(config: str, text: str | None) -> None:
    if text is None:
        config_file.remove(config)
    else:
        config_file.replace(config, text.encode())


def recorded(engine: str, state_dir: str | None, config: str) -> Record | None:
    """What is remembered of an installation into the file `config`."""
    data = config_file.read(_records(engine, state_dir))
    if data is None:
        return None
    try:
        records = [Record(**file) for file in json.loads(data)["files"]]
    except (ValueError, TypeError, KeyError):
        return None  # of another version, or damaged: what is ours can still be found by its name
    real = os.path.realpath(config)
    return next((record for record in records if os.path.realpath(record.config) == real), None)


def remember(engine: str, state_dir: str | None, records: Sequence[Record]) -> None:
    told = {"files": [asdict(record) for record in records]}
    text = json.dumps(told, indent=2, ensure_ascii=False)
    config_file.replace(_records(engine, state_dir), f"{text}\n".encode())


def forget(engine: str, state_dir: str | None) -> None:
    config_file.remove(_records(engine, state_dir))


def _records(engine: str, state_dir: str | None) -> str:
    return f"{state_dir or paths.state_dir()}/install/{engine}.json"


def _lines(text: str | None) -> list[str]:
    lines = (text or "").splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n\\ No newline at end of file\n"
    return lines
