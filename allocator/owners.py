"""Whose the processes are that NVML lists, asked of /proc as seldom as can be.

    holder      a grant's first process, by pid and start
    cgroup      who is in the cgroup that a container has for itself, or below it; of one within another, the inner one
    ledger      who maps the ledger of a `gpuportion exec`: its tmpfs has a device number of its own

Who was found a grant's stays so while both live. Who is nobody's is asked about again after 1, 2, 4 … SELDOM samples:
a library may map its ledger late, and who moves a process may do so when it runs already. What a process maps is a long
file, so MAPS of them are read after one sample; whose turn has not come is nobody's yet (UNDECIDED): what it holds
can't be granted, and nobody is blamed for it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from gpuportion.allocator import cgroups
from gpuportion.allocator.lives import Lives
from gpuportion.allocator.processes import Process, began_before, mapped_devices

UNDECIDED: Final = "?"
"""In place of a token."""

SELDOM: Final = 16
MAPS: Final = 8


@dataclass(frozen=True, slots=True)
class Claim:
    """How the processes of one grant are known, and what it gives them. `holder` is its first process; `ledger` the
    device number of its ledger's own tmpfs, or 0; `limits` bytes by GPU UUID. `tolerated`: bytes by GPU UUID that it
    may go on holding above its limit, because that was lowered below what it held."""

    token: str
    cgroups: tuple[str, ...] = ()
    holder: Process | None = None
    ledger: int = 0
    limits: Mapping[str, int] = field(default_factory=dict)
    tolerated: Mapping[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class _Stranger:
    """Nobody's, of this start; asked about again once so many samples have passed."""

    start: int
    wait: int = 1
    left: int = 1


class Owners:
    """`membership`, `mapped`: what /proc says of a pid's cgroups, and of the devices whose files it maps."""

    def __init__(
        self,
        membership: Callable[[int], dict[str, str]] = cgroups.membership,
        mapped: Callable[[int], Collection[int]] = mapped_devices,
    ) -> None:
        self._membership, self._mapped = membership, mapped
        self._lives = Lives()
        self._known: dict[int, tuple[int, str]] = {}
        self._strangers: dict[int, _Stranger] = {}
        self._claims = _Index(())
        self._maps_left = 0

    def of(
        self, pids: Collection[int], claims: Iterable[Claim], taken: float
    ) -> dict[int, tuple[int, str | None]]:
        """(start, token) of processes that NVML listed at `taken`. The token is "" for who has no grant, None for who
        has ended, UNDECIDED for who has to wait; one that is younger than the list has only its pid."""
        claims = tuple(claims)
        if claims != self._claims.made_of:
            self._claims = _Index(claims)
        self._known = {pid: one for pid, one in self._known.items() if one[1] in self._claims.tokens}
        self._strangers = {pid: one for pid, one in self._strangers.items() if pid in pids}
        self._lives.keep(pids)
        self._lives.look()
        self._maps_left = MAPS
        new_first = sorted(pids, key=self._strangers.__contains__)
        return {pid: self._owner(pid, taken) for pid in new_first}

    def has_lost(self) -> bool:
        """Has one that was asked for ended since?"""
        return self._lives.look()

    def _owner(self, pid: int, taken: float) -> tuple[int, str | None]:
        start = self._lives.start_of(pid)
        known = self._known.get(pid)
        if known is not None and start in (known[0], None):
            return known
        if start is None or not began_before(start, taken):
            return 0, None
        token = self._found(Process(pid, start))
        if token and token is not UNDECIDED:
            self._known[pid] = start, token
        return start, token

    def _found(self, process: Process) -> str:
        """The token of the grant that it belongs to, "" or UNDECIDED."""
        if token := self._claims.holders.get(process):
            return token
        stranger = self._strangers.get(process.pid)
        if stranger is not None and stranger.start == process.start:
            stranger.left -= 1
            if stranger.left > 0:
                return ""
        return self._asked(process, stranger)

    def _asked(self, process: Process, before: _Stranger | None) -> str:
        """As /proc says now."""
        token = self._claims.of_cgroups(self._membership(process.pid))
        if token or not self._claims.ledgers:
            pass
        elif self._maps_left:
            self._maps_left -= 1
            mapped = self._mapped(process.pid)
            token = next((self._claims.ledgers[one] for one in mapped if one in self._claims.ledgers), "")
        elif before is None or before.start != process.start:
            return UNDECIDED
        else:
            return ""  # it was nobody's; its turn comes with the next sample
        if not token:
            wait = 1 if before is None or before.start != process.start else min(SELDOM, before.wait * 2)
            self._strangers[process.pid] = _Stranger(process.start, wait, wait)
        return token


class _Index:
    """Claims, by what their processes are known by."""

    def __init__(self, claims: tuple[Claim, ...]) -> None:
        self.made_of = claims
        self.tokens = {claim.token for claim in claims}
        self.holders = {claim.holder: claim.token for claim in reversed(claims) if claim.holder}
        self.folders = {folder: claim.token for claim in reversed(claims) for folder in claim.cgroups}
        self.ledgers = {claim.ledger: claim.token for claim in claims if claim.ledger}

    def of_cgroups(self, places: Mapping[str, str]) -> str:
        """The token of the grant whose cgroup the process is in; "" if it is in none."""
        for name, path in places.items() if self.folders else ():
            mount = cgroups.mounts().get(name)
            folder = f"{mount}{path}" if mount is not None else ""
            while folder:
                if token := self.folders.get(folder):
                    return token
                folder = folder.rpartition("/")[0]
        return ""
