"""Who lives by each grant: whoever makes its container, its first process, and all in its cgroups.

A pidfd tells of one process, at once and surely; cgroups and ledgers tell of all the others, when they are asked.
What follows from it is lifecycle.py's to say."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from gpuportion.allocator import cgroups, pages, processes
from gpuportion.allocator.grant import Grant
from gpuportion.allocator.hints import Hints
from gpuportion.allocator.lifecycle import Event, State, World, verdict


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

    def watch_again(self, grant: Grant, now: float) -> None:
        """After a restart, hear of the end of the process that a row names; one that is gone already is a hint by
        itself."""
        process = grant.holder if grant.state is State.ACTIVE else grant.creator
        if grant.boot != self.boot or grant.state is State.RELEASED or process is None:
            return
        pidfd = processes.open_pidfd(process)
        if pidfd is not None:
            self._hints.watch(grant.token, pidfd)
        else:
            self._hints.soon(grant.token, now)

    def world(self, grants: Iterable[Grant], now: float) -> World:
        return World(self.boot, now, {grant.token for grant in grants if self._is_living(grant)})

    def verdict(self, grant: Grant, now: float) -> Event | None:
        """What must happen to this grant, as `lifecycle` says of one."""
        return verdict(grant, World(self.boot, now, (grant.token,) if self._is_living(grant) else ()))

    def _is_living(self, grant: Grant) -> bool:
        """Of a reserved grant: does its creator live? One in a pid namespace that we cannot see has until the
        deadline."""
        if grant.state is State.ACTIVE:
            return self._is_occupied(grant)
        return grant.creator is None or self._hints.is_alive(grant.token)

    def _is_occupied(self, grant: Grant) -> bool:
        if self._hints.is_alive(grant.token):
            return True
        if grant.cgroups:
            return any(cgroups.is_populated(folder) for folder in grant.cgroups)
        return self._on_instance(grant.token) if grant.mig else pages.holders(self._ledger(grant)) > 0
