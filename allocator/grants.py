"""The life of grants on this host: the shell around `lifecycle`, `store` and the pages.

    reserve   the row is written RESERVED (from now on it counts), then the pages are made; or all is undone
    confirm   the hook shows the container's first process by a pidfd: ACTIVE
    look      a hint came: what is really there decides; a released grant's pages and row go

One thread, so two starts at once are one after the other. What a start finds is recovery.py's. Knows nothing of NVML,
placement or sockets.
"""

from __future__ import annotations

import functools
import logging
import os
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Final

from gpuportion.allocator import cgroups, pages, processes
from gpuportion.allocator.devices import Holding, Share, uuid_bytes
from gpuportion.allocator.fault_points import here
from gpuportion.allocator.grant import Intent
from gpuportion.allocator.hints import Hints
from gpuportion.allocator.lifecycle import Event, State
from gpuportion.allocator.notes import Notes
from gpuportion.allocator.presence import Presence
from gpuportion.allocator.processes import Living
from gpuportion.allocator.store import BrokenStoreError, FullStoreError, Grant, Store
from gpuportion.allocator.sweeper import Gone, at_once
from gpuportion.allocator.tally import Tally
from gpuportion.errors import GpuportionError

log: Final = logging.getLogger("gpuportiond")

CONTAINER: Final = "container"
PROCESS: Final = "process"

SETTLE: Final = "settle"
"""Among the tokens of grants, which are hex digits: nothing to look at, but a reason to go on."""

RETRY: Final = 1.0
"""Seconds until what could not be removed, or written, is tried again."""


def now() -> float:
    """Seconds since boot, sleep included: a reservation does not live longer because the machine slept."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Grants:
    def __init__(
        self,
        store: Store,
        hints: Hints,
        run_dir: str,
        *,
        reservation_timeout: float,
        remove_more: Callable[[str], None],
        on_instance: Callable[[str], bool],
    ) -> None:
        """`remove_more`: takes away what others made for a grant, by its token. `on_instance`: are processes on a
        grant's MIG instance?"""
        self.store = store
        self.notes = Notes(f"{run_dir}/notes")
        self.pages_dir = f"{run_dir}/grants"
        """Where each has a folder, by its token."""
        self.presence = Presence(hints, self.ledger, on_instance)
        self._settles_again = 0.0
        self.sweep: Callable[[Gone], None] = at_once
        """How the pages of released grants are removed; once others are served, not in their way."""
        self._removing: set[str] = set()
        self._remove_more = remove_more
        self._hints = hints
        self._timeout = reservation_timeout

    def live(self) -> list[Grant]:
        return self.store.live()

    @property
    def tally(self) -> Tally:
        """What they come to."""
        return self.store.tally

    def holdings(self, but: Grant | None = None) -> list[Holding]:
        """What counts on each GPU, of all grants `but` one."""
        live = [grant for grant in self.store.live() if but is None or grant.token != but.token]
        return [Holding(grant.label, share) for grant in live for share in grant.shares]

    def folder(self, grant: Grant) -> str:
        return f"{self.pages_dir}/{grant.token}"

    def ledger(self, grant: Grant) -> str:
        return f"{self.pages_dir}/{grant.token}/ledger/ledger"

    # Reserved and confirmed

    def reserve(self, intent: Intent) -> Grant:
        """Write down that this much is promised, for as long as its creator lives and the timeout is not over. The
        creator's descriptor is taken over, and closed where nothing was promised."""
        here("reserving")
        began, creator = now(), intent.creator
        try:
            grant = self.store.add(self._intended(intent, began))
        except BaseException:
            if creator is not None:
                os.close(creator.pidfd)
            raise
        here("reserved")
        if creator is not None:
            self._hints.watch(grant.token, creator.pidfd)
        self._hints.at(grant.token, grant.deadline)
        return grant

    def _intended(self, intent: Intent, began: float) -> Grant:
        return Grant(
            token=secrets.token_hex(16),
            boot=self.presence.boot,
            created=began,
            deadline=began + self._timeout,
            kind=intent.kind,
            shares=intent.shares,
            request=intent.request,
            root=intent.root,
            id=intent.id,
            name=intent.name,
            uid=intent.uid,
            user=intent.user,
            creator=intent.creator.process if intent.creator else None,
        )

    def make_pages(
        self, grant: Grant, libcuda: str, libnvml: str, ledger: str, preload: bytes = b"", label: str = ""
    ) -> str:
        """The policy and ledger pages, with these paths as the library will see them, and the ld.so.preload; the
        grant's folder. The ledger of a plain process is its user's alone."""
        limits = [
            pages.GpuLimit(uuid_bytes(share.uuid), share.limit, share.context) for share in grant.shares
        ]
        folder = self.folder(grant)
        made = pages.create(
            folder,
            limits,
            container=_page_name(grant),
            libcuda=libcuda,
            libnvml=libnvml,
            ledger=ledger,
            preload=preload,
            label=label,
            owner=grant.uid if grant.kind == PROCESS else None,
        )
        here("pages-made")
        if made.note:
            log.warning("pages of %s: %s", grant.token[:8], made.note)
        return folder

    def undo(self, grant: Grant) -> None:
        """A step of making it failed: as if it had never been."""
        current = self.store.get(grant.token)
        if current is not None and current.state is not State.RELEASED:
            self.release(current, Event.UNDONE)

    def confirm(self, token: str, pid: int, pidfd: int, beside: int) -> Grant:
        """The process of `pidfd`, which must be `pid`, is the grant's first one; `beside` shows it to us.

        GpuportionError: the reservation has ended, so what was to start must not; or the descriptor lies.
        """
        here("confirming")
        grant = self.store.get(token)
        if grant is not None and grant.state is State.RESERVED and now() >= grant.deadline:
            self.look(token)
            grant = self.store.get(token)
        if grant is None or grant.state is State.RELEASED:
            why = f"it ended before the container was ready (after {self._timeout:g} s, or with its creator)"
            raise GpuportionError("GP305", what="the reservation of this container", why=why)
        living, folders = _shown(pid, pidfd, beside)
        try:
            if grant.state is State.ACTIVE and grant.holder != living.process:
                raise GpuportionError("GP303", why="another process confirmed this grant before")
            grant = self.store.apply(grant, Event.CONFIRMED, holder=living.process, cgroups=folders)
        except BaseException:
            os.close(living.pidfd)
            raise
        self.notes.write(grant)
        here("confirmed")
        self._hints.watch(token, living.pidfd)
        return grant

    def promise(self, grant: Grant, shares: tuple[Share, ...]) -> Grant:
        """A reservation becomes one of these shares, which a MIG instance has once it is made. GpuportionError: it has
        ended meanwhile, with its creator or by its time."""
        current = self.store.get(grant.token)
        if current is None or current.state is not State.RESERVED:
            why = "it ended, with its creator or by its time, while the MIG instance was made"
            raise GpuportionError("GP305", what="the reservation of this container", why=why)
        return self.store.apply(current, Event.PROMISED, shares=shares)

    def resize(self, grant: Grant, shares: tuple[Share, ...]) -> Grant:
        """Give it these amounts of the GPUs that it has, for every allocation from now on.

        What grows is written down before the page is changed, what shrinks after: at no moment does the page allow
        more than is promised. A crash between the two is mended by `recover`, by what is written down.
        """
        larger = tuple(
            max(old, new, key=lambda share: share.limit)
            for old, new in zip(grant.shares, shares, strict=True)
        )
        grant = self.store.apply(grant, Event.RESIZED, shares=larger)
        self.write_limits(grant, shares)
        asked = {**grant.request, "fraction": None, "memory": [share.limit for share in shares]}
        grant = self.store.apply(grant, Event.RESIZED, shares=shares, request=asked)
        self.notes.write(grant)
        return grant

    def write_limits(self, grant: Grant, shares: Sequence[Share]) -> None:
        for share in shares:
            pages.set_limit(f"{self.folder(grant)}/policy", uuid_bytes(share.uuid), share.limit)

    # Hints, looks and the end

    def hint(self, token: str) -> None:
        """Somebody says that this grant's container ended."""
        if self.store.get(token) is not None:
            self._hints.soon(token, now())

    def find(self, root: str, id: str) -> list[Grant]:
        """Live grants of a container; more than one while an older one with the same id is on its way out."""
        return self.store.tally.of_container(root, id)

    def look(self, token: str) -> None:
        """Make one grant agree with what is there, and look again later where that may change unheard."""
        grant = self.store.get(token)
        if grant is None:
            return
        if grant.state is State.RELEASED:
            self.remove(grant)
            return
        event = self.presence.verdict(grant, now())
        if event is not None:
            self.release(grant, event)
        else:
            self.look_again(grant)

    def look_again(self, grant: Grant) -> None:
        """When the next look at a grant that holds is due by itself."""
        if grant.state is State.RESERVED:
            self._hints.at(grant.token, grant.deadline)
        elif not self._hints.is_alive(grant.token):
            self._hints.later(grant.token, now())

    def look_at_ending(self) -> None:
        """Look at every grant whose process is gone, before somebody is refused for want of its memory."""
        for grant in self.store.live():
            if not self._hints.is_alive(grant.token):
                self.look(grant.token)

    def supersede(self, root: str, id: str, creator: int) -> None:
        """A creator (its pid) that asks again (its connection broke) has thrown its first answer away; and of a
        container that is made anew under its old id, what is left may have ended."""
        for grant in self.find(root, id):
            if grant.state is State.RESERVED and grant.creator and grant.creator == processes.of_pid(creator):
                self.release(grant, Event.ABANDONED)
            else:
                self.look(grant.token)

    def release(self, grant: Grant, event: Event) -> None:
        here("releasing")
        grant = self.store.apply(grant, event)
        here("released")
        self._hints.forget(grant.token)
        log.info("released %s %s: %s", grant.token[:8], grant.label, event.value)
        self.remove(grant)

    def settle(self) -> None:
        """Write the ends of grants down, if they are not, and there is room."""
        if now() < self._settles_again:
            return
        try:
            self.store.settle()
        except (FullStoreError, BrokenStoreError) as problem:
            log.warning("the ends of grants cannot be written, trying again: %s", problem)
            self._settles_again = now() + RETRY
            self._hints.at(SETTLE, self._settles_again)

    def remove(self, grant: Grant) -> None:
        """What is left of a released grant. Its pages go beside the answers: an unmount waits for the kernel."""
        if grant.token in self._removing:
            return
        try:
            self._remove_more(grant.token)
        except OSError as problem:
            self._remove_later(grant, problem)
            return
        self._removing.add(grant.token)
        then = functools.partial(self._pages_removed, grant)
        self.sweep(Gone(self.folder(grant), self.notes.path(grant.token), then))

    def _pages_removed(self, grant: Grant, trouble: Exception | None) -> None:
        self._removing.discard(grant.token)
        if trouble is not None:
            self._remove_later(grant, trouble)
            return
        here("pages-removed")
        try:
            self.store.forget(grant)
        except OSError as problem:
            self._remove_later(grant, problem)
            return
        here("forgotten")

    def _remove_later(self, grant: Grant, problem: Exception) -> None:
        log.warning("pages of %s could not be removed, trying again: %s", grant.token[:8], problem)
        self._hints.at(grant.token, now() + RETRY)


def _shown(pid: int, pidfd: int, beside: int) -> tuple[Living, tuple[str, ...]]:
    """The process of `pidfd`, by a descriptor of our own, and the cgroups that it has for itself. GpuportionError: it
    isn't `pid`, or has ended; then what was read may be of another one, that has its pid now."""
    living = processes.meet(pid)
    if living is not None:
        if processes.is_pidfd_of(pidfd, living):
            folders = cgroups.own_folders(pid, beside)
            if not processes.has_exited(living.pidfd):
                return living, folders
        os.close(living.pidfd)
    processes.pid_of(pidfd)  # what is no pidfd at all is said to be none
    raise GpuportionError("GP304", why=f"the descriptor is no pidfd of a living process {pid}")


def _page_name(grant: Grant) -> str:
    """The grant's name as the library's messages show it: plain, and of a length that fits the page."""
    return "".join(c if c.isascii() and c.isprintable() else "?" for c in grant.label)[:100]
