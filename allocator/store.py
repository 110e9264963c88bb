"""Grants on disk, and the one function through which they change.

    /run/gpuportion/store.sqlite3     on a tmpfs: it dies with the boot, as grants do
        grant                         one row a grant; its `generation` is larger than any before and never used
                                      again: an engine uses a container's id again within 100 ms (docker restart)

The daemon is the only writer (it holds gpuportiond.lock), so the rows are mirrored in memory and reading is free. A
daemon killed between any two statements leaves whole rows; what they mean then is for `lifecycle.reconcile`. The end of
a grant is written with the next other change, as one, or by `settle`: until then the file has a grant that nobody lives
by, which a start finds out, but never memory that two were given. synchronous=OFF: the kernel keeps what a killed
process wrote, and after a power cut /run is empty anyway. Knows nothing of GPUs, pages or processes."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from gpuportion.allocator import fast_json
from gpuportion.allocator.devices import Share
from gpuportion.allocator.grant import Grant
from gpuportion.allocator.lifecycle import Event, State, step
from gpuportion.allocator.mig.portion import MigPortion
from gpuportion.allocator.processes import Process
from gpuportion.allocator.tally import Tally

__all__ = [
    "BrokenStoreError",
    "FullStoreError",
    "Grant",
    "StaleError",
    "Store",
    "grant_of",
    "move_aside",
    "row_of",
]

VERSION: Final = 1

SCHEMA: Final = """
CREATE TABLE "grant" (
    generation INTEGER PRIMARY KEY,
    token TEXT NOT NULL,
    state TEXT NOT NULL,
    boot TEXT NOT NULL,
    deadline REAL NOT NULL,
    detail TEXT NOT NULL
);
PRAGMA user_version = 1;
"""


RELEASE: Final = f"UPDATE \"grant\" SET state = '{State.RELEASED.value}' WHERE generation = ?"
FORGET: Final = 'DELETE FROM "grant" WHERE generation = ?'


class BrokenStoreError(Exception):
    """The file cannot be read, or is of another version."""


class FullStoreError(OSError):
    """Nothing can be written or made where the file lies: the file system is full, or has an error of its own."""


class StaleError(Exception):
    """The grant is no longer in the state that the change was made for."""


def _share(value: dict[str, Any]) -> Share:
    mig = value.get("mig")
    return Share(**{**value, "mig": mig and MigPortion(**mig)})


COLUMNS: Final = ("generation", "token", "state", "boot", "deadline")
DETAIL: Final = tuple(f.name for f in dataclasses.fields(Grant) if f.name not in COLUMNS)
RECORDS: Final[dict[str, Callable[[Any], Any]]] = {
    "shares": lambda value: tuple(map(_share, value)),
    "creator": lambda value: value and Process(**value),
    "holder": lambda value: value and Process(**value),
    "cgroups": tuple,
}


def _detail(grant: Grant) -> str:
    return fast_json.dumps({name: getattr(grant, name) for name in DETAIL}).decode()


def row_of(grant: Grant) -> tuple[Any, ...]:
    """As JSON can have it, and `grant_of` takes it."""
    return (grant.generation, grant.token, grant.state.value, grant.boot, grant.deadline, _detail(grant))


def grant_of(row: Sequence[Any]) -> Grant:
    """The grant of a row. ValueError, TypeError or AttributeError: it is none."""
    generation, token, state, boot, deadline, detail = row
    values = {
        name: RECORDS.get(name, lambda same: same)(value) for name, value in fast_json.loads(detail).items()
    }
    return Grant(
        generation=generation, token=token, state=State(state), boot=boot, deadline=deadline, **values
    )


class Store:
    """The rows of one file. One process, one thread."""

    def __init__(self, path: str) -> None:
        """BrokenStoreError if the file is there and no such store."""
        self._path = path
        self._db = _open(path)
        self._late: dict[int, str] = {}
        """Of ends that are still to be written, the statement, by generation."""
        try:
            _check(self._db)
            found = self._db.execute(
                'SELECT generation, token, state, boot, deadline, detail FROM "grant" ORDER BY generation'
            )
            self._rows = {grant.token: grant for grant in map(grant_of, found)}
            self._last = max((grant.generation for grant in self._rows.values()), default=0)
            self.tally = Tally(self._rows.values())
        except (sqlite3.DatabaseError, ValueError, TypeError, AttributeError) as problem:
            self._db.close()
            raise _said(problem, path) from None

    def __iter__(self) -> Iterator[Grant]:
        return iter(list(self._rows.values()))

    def get(self, token: str) -> Grant | None:
        return self._rows.get(token)

    def live(self) -> list[Grant]:
        """What counts: reserved and active grants, the oldest first."""
        return [grant for grant in self._rows.values() if grant.state is not State.RELEASED]

    def add(self, grant: Grant) -> Grant:
        """Write the intent down; the row with its generation."""
        grant = grant.changed(generation=self._next_generation())
        self._write(('INSERT INTO "grant" VALUES (?, ?, ?, ?, ?, ?)', row_of(grant)))
        self._rows[grant.token] = grant
        self.tally.change(None, grant)
        return grant

    def _next_generation(self) -> int:
        """By the clock, which goes on while rows are forgotten and daemons end: an index of what has been would have to
        be written with each grant."""
        self._last = max(self._last + 1, time.clock_gettime_ns(time.CLOCK_BOOTTIME))
        return self._last

    def apply(self, before: Grant, event: Event, **changes: Any) -> Grant:
        """The only way in which a grant changes. StaleError if it is no longer as in `before`,
        IllegalTransitionError if such a grant cannot have this event."""
        after = before.changed(state=step(before.state, event), **changes)
        current = self._rows.get(before.token)
        if current is None or (current.state, current.generation) != (before.state, before.generation):
            raise StaleError(f"grant {before.token[:8]} is no longer {before.state.value}")
        if after.state is State.RELEASED and not changes:
            self._late[after.generation] = RELEASE
        else:
            update = 'UPDATE "grant" SET state = ?, detail = ? WHERE generation = ?'
            self._write((update, (after.state.value, _detail(after), after.generation)))
        self._rows[after.token] = after
        self.tally.change(before, after)
        return after

    def forget(self, grant: Grant) -> None:
        """Drop the row of a released grant, once nothing of it is left on the host."""
        current = self._rows.get(grant.token)
        if current is None or current.generation != grant.generation or current.state is not State.RELEASED:
            return
        self._late[grant.generation] = FORGET
        del self._rows[grant.token]

    def settle(self) -> None:
        """Write the ends of grants that are still to be written. FullStoreError: not yet."""
        if self._late:
            self._write()

    def _write(self, *change: tuple[str, tuple[Any, ...]]) -> None:
        """With all ends that are to be written, in one piece. FullStoreError: nothing was changed, for want of room."""
        changes = [*((end, (generation,)) for generation, end in self._late.items()), *change]
        try:
            if len(changes) > 1:
                self._db.execute("BEGIN")
            for statement, values in changes:
                self._db.execute(statement, values)
            if len(changes) > 1:
                self._db.execute("COMMIT")
            self._late.clear()
        except sqlite3.DatabaseError as problem:
            if self._db.in_transaction:
                with contextlib.suppress(sqlite3.DatabaseError):
                    self._db.execute("ROLLBACK")
            raise _said(problem, self._path) from problem

    def close(self) -> None:
        with contextlib.suppress(FullStoreError, BrokenStoreError):
            self.settle()
        self._db.close()


def _open(path: str) -> sqlite3.Connection:
    """The file, made where there is none. A broken one is left alone."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
    db = sqlite3.connect(path, isolation_level=None, cached_statements=16)
    try:
        for setting in ("locking_mode=EXCLUSIVE", "journal_mode=WAL", "synchronous=OFF"):
            db.execute(f"PRAGMA {setting}")
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version == 0:
            db.executescript(f"BEGIN; {SCHEMA} COMMIT;")
    except sqlite3.DatabaseError as problem:
        db.close()
        raise _said(problem, path) from None
    if version not in (0, VERSION):
        db.close()
        raise BrokenStoreError(f"it is of version {version}; this daemon knows version {VERSION}")
    return db


def move_aside(path: str, aside: str) -> None:
    """Make room for a new store; the broken one, and what sqlite keeps beside it, goes over an earlier one."""
    for more in ("", "-wal", "-shm"):
        try:
            os.replace(f"{path}{more}", f"{aside}{more}")
        except FileNotFoundError:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{aside}{more}")


def _check(db: sqlite3.Connection) -> None:
    """Every page of the file, now: a row that is met damaged later could not be given back. ValueError."""
    (found,) = db.execute("PRAGMA quick_check(1)").fetchone()
    if found != "ok":
        raise ValueError(" ".join(str(found).split()))


NO_ROOM: Final = ("disk is full", "disk I/O error", "unable to open", "readonly", "locked")
"""What sqlite says of a file's surroundings; before Python 3.11 it has no numbers for it."""


def _said(problem: Exception, path: str) -> Exception:
    """What sqlite's error means: nothing is known against the file where there is no room beside it."""
    text = str(problem)
    if isinstance(problem, sqlite3.OperationalError) and any(word in text for word in NO_ROOM):
        return FullStoreError(errno.ENOSPC, text, path)
    return BrokenStoreError(text)
