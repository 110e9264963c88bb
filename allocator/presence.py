"""Who lives by each grant: whoever makes its container, its first process, and all in its cgroups.

A pidfd tells of one process, at once and surely; cgroups and ledgers tell of all the others, when they are asked.
Decides nothing: what follows from it is lifecycle.py's to say."""

from __future__ import annotations

from collections.abc import Callable, Collection

from gpuportion.allocator import cgroups, pages, processes
from gpuportion.allocator.grant import Grant
from gpuportion.allocator.hints import Hints
from gpuportion.allocator.lifecycle import State, World
from gpuportion.allocator.processes import Process


class Presence:
    """Of this boot's processes. `now` is in seconds of CLOCK_BOOTTIME."""

    def __init__(
        self, hints: Hints, ledger: Callable[[Grant], str], on_instance: Callable[[str], bool]
    ) -> None:
        """`ledger`: the path of a grant's ledger. `on_instance`: are processes on a grant's MIG instance?"""
        self.boot = processes.boot_id()
        self._hints = hints
        self._ledger = ledger
        self._on_instance = on_instance

    def watch(self, grant: Grant, process: Process | None, now: float) -> None:
        """Hear of the end of this process; one that is gone already is a hint by itself."""
        if process is None:
            return
        pidfd = processes.open_pidfd(process)
        if pidfd is not None:
            self._hints.watch(grant.token, pidfd)
        else:
            self._hints.soon(grant.token, now)

    def watch_again(self, grant: Grant, now: float) -> None:
        """After a restart: of the process that a row names."""
        if grant.boot != self.boot or grant.state is State.RELEASED:
            return
        self.watch(grant, grant.holder if grant.state is State.ACTIVE else grant.creator, now)

    def world(self, grants: Collection[Grant], now: float) -> World:
        return World(
            boot=self.boot,
            now=now,
            creating=frozenset(grant.token for grant in grants if self._is_creating(grant)),
            occupied=frozenset(grant.token for grant in grants if self._is_occupied(grant)),
        )

    def _is_creating(self, grant: Grant) -> bool:
        """Does its creator live? One in a pid namespace that we cannot see has until the deadline."""
        return grant.creator is None or self._hints.is_alive(grant.token)

    def _is_occupied(self, grant: Grant) -> bool:
        if grant.state is not State.ACTIVE:
            return False
        if self._hints.is_alive(grant.token):
            return True
        if grant.cgroups:
            return any(cgroups.is_populated(folder) for folder in grant.cgroups)
        return self._on_instance(grant.token) if grant.mig else pages.holders(self._ledger(grant)) > 0
