"""What the store says of each active grant, once more, in a file of its own: for the day when the store is lost.

    <run dir>/notes/<token>      0600, in a folder of 0700

Written when a grant is confirmed or changed; goes with the grant's pages, before its row does. So a note without a row
tells that rows were lost, and not that a grant has ended. Half of one, as a killed daemon may leave it, can't be read
and is none; the next daemon writes it anew. It is for what nobody else can tell: whose a grant is, what was asked for,
its MIG instance. A note that can't be written costs nobody the grant. Knows nothing of who lives."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Collection, Iterable
from typing import Final

from gpuportion.allocator import fast_json, pages
from gpuportion.allocator.grant import Grant
from gpuportion.allocator.store import grant_of, row_of

log: Final = logging.getLogger("gpuportiond")


class Notes:
    """One process, one thread."""

    def __init__(self, folder: str) -> None:
        self._folder, self._place = folder, os.fsencode(f"{folder}/")
        with contextlib.suppress(OSError):
            os.makedirs(folder, mode=0o700, exist_ok=True)

    def write(self, grant: Grant) -> None:
        try:
            pages.write_note(self._place + grant.token.encode(), fast_json.dumps(row_of(grant)))
        except OSError as problem:
            where, why = problem.filename, problem.strerror
            log.warning("%s is in the store alone: %s can't be written: %s", grant.token[:8], where, why)

    def path(self, token: str) -> str:
        """Where a grant's note is, if it has one."""
        return f"{self._folder}/{token}"

    def lost(self, known: Collection[str], boot: str) -> list[Grant]:
        """The grants of this boot whose tokens are not `known`. What else lies there, or can't be read, is removed."""
        found = []
        for name in sorted(self._names() - set(known)):
            grant = self._read(name)
            if grant is not None and grant.token == name and grant.boot == boot:
                found.append(grant)
            else:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self.path(name))
        return found

    def complete(self, grants: Iterable[Grant]) -> None:
        """Write those that are not there, or not whole: of a daemon that knew no notes, had no room for them, or was
        killed while it wrote one."""
        for grant in grants:
            if self._read(grant.token) != grant:
                self.write(grant)

    def _names(self) -> set[str]:
        """Tokens, and what a killed daemon has left half written."""
        try:
            return set(os.listdir(self._folder))
        except FileNotFoundError:
            return set()

    def _read(self, token: str) -> Grant | None:
        try:
            fd = os.open(self.path(token), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            with open(fd, "rb") as file:
                return grant_of(fast_json.loads(file.read()))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, AttributeError) as problem:
            log.warning("the note of %s can't be read: %s", token[:8], problem)
            return None
