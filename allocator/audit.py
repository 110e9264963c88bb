"""Who has GPU memory without a grant or beyond it, from one sample of NVML to the next.

    stranger    a process in a container that has no grant: reported when it was seen once
    over        a grant whose processes hold more of a GPU than it allows, and a margin: when it was seen twice

The margin is for what is there before it can be counted (loaded code, a context larger than learned): a process that
keeps to its library stays within it. Processes of the host without a grant are nobody's business here; what they hold
is not granted. A grant that was lowered below what it held may go on holding that, and less as soon as it holds less.

Pure: values in, findings out. Knows nothing of /proc, and ends nobody (ending.py)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from gpuportion.allocator.attribution import Held
from gpuportion.allocator.owners import Claim
from gpuportion.sizes import MIB

STRANGER, OVER = "stranger", "over"

NEEDED: Final = {STRANGER: 1, OVER: 2}
"""Consecutive samples in which something is seen before it is reported."""

LASTING: Final = 5.0
"""Seconds for which a grant is exceeded before anybody is ended for it."""

LEAST_MARGIN: Final = 256 * MIB
PART: Final = 20


def margin(limit: int) -> int:
    """Bytes beyond a limit that are not reported: 256 MiB, or a twentieth of it if that is more."""
    return max(LEAST_MARGIN, limit // PART)


class Key(NamedTuple):
    """What is watched: a process without a grant by (pid, start), or a grant by its token; on one GPU."""

    kind: str
    uuid: str
    who: tuple[int, int] | str


@dataclass(frozen=True, slots=True)
class Finding:
    """`held` bytes of a GPU by these processes, where `limit` are allowed. `since`: when it was first seen, `seen`: in
    how many samples since then."""

    key: Key
    processes: tuple[Held, ...]
    limit: int
    since: float
    seen: int = 1

    @property
    def held(self) -> int:
        return sum(one.size for one in self.processes)

    @property
    def is_reported(self) -> bool:
        return self.seen >= NEEDED[self.key.kind]

    def may_be_ended(self, now: float) -> bool:
        """Is it sure enough to end somebody for? A stranger that was seen twice, or what has lasted."""
        if self.key.kind == STRANGER:
            return self.seen > NEEDED[STRANGER]
        return self.is_reported and now - self.since >= LASTING


class Audit:
    """What was found in the last sample, and what it was before."""

    def __init__(self) -> None:
        self._watched: dict[Key, Finding] = {}
        self._tolerated: dict[tuple[str, str], tuple[int, int]] = {}

    @property
    def reported(self) -> list[Finding]:
        """What is there to report now, the oldest first."""
        return sorted((one for one in self._watched.values() if one.is_reported), key=lambda one: one.since)

    @property
    def is_watching(self) -> bool:
        """Was anything found in the last sample?"""
        return bool(self._watched)

    @property
    def suspects(self) -> bool:
        """Would one more sample decide something?"""
        return any(not one.is_reported for one in self._watched.values())

    def update(
        self,
        processes: Mapping[str, Sequence[Held]],
        claims: Iterable[Claim],
        is_contained: Callable[[Held], bool],
        now: float,
    ) -> tuple[list[Finding], list[Finding]]:
        """A sample at `now`, by GPU UUID: what it brought to report, and what was reported and is over."""
        before = self._watched
        found = [*_strangers(processes, is_contained, now), *self._beyond(processes, claims, now)]
        self._watched = {one.key: _continued(one, before.get(one.key)) for one in found}
        new = [one for one in self._watched.values() if one.seen == NEEDED[one.key.kind]]
        over = [one for key, one in before.items() if one.is_reported and key not in self._watched]
        return new, over

    def _beyond(
        self, processes: Mapping[str, Sequence[Held]], claims: Iterable[Claim], now: float
    ) -> Iterator[Finding]:
        by_token = {claim.token: claim for claim in claims}
        self._tolerated = {key: size for key, size in self._tolerated.items() if key[0] in by_token}
        for uuid, all_held in processes.items():
            for token, mine in _by_token(all_held).items():
                if token not in by_token:
                    continue
                held = sum(one.size for one in mine)
                if held > self._allowed(by_token[token], uuid, held):
                    limit = by_token[token].limits.get(uuid, 0)
                    yield Finding(Key(OVER, uuid, token), tuple(mine), limit, now)

    def _allowed(self, claim: Claim, uuid: str, held: int) -> int:
        """Bytes that are not reported. What is tolerated sinks with what is held, and rises by another update."""
        limit, given = claim.limits.get(uuid, 0), claim.tolerated.get(uuid, 0)
        before, left = self._tolerated.get((claim.token, uuid), (given, given))
        left = min(left, held) if before == given else given
        self._tolerated[claim.token, uuid] = given, left
        return max(limit, left) + margin(limit)


def _by_token(all_held: Sequence[Held]) -> dict[str, list[Held]]:
    found: dict[str, list[Held]] = {}
    for held in all_held:
        if held.token:
            found.setdefault(held.token, []).append(held)
    return found


def _strangers(
    processes: Mapping[str, Sequence[Held]], is_contained: Callable[[Held], bool], now: float
) -> Iterator[Finding]:
    for uuid, all_held in processes.items():
        for held in all_held:
            if held.token == "" and is_contained(held):
                yield Finding(Key(STRANGER, uuid, (held.pid, held.start)), (held,), 0, now)


def _continued(finding: Finding, before: Finding | None) -> Finding:
    if before is None:
        return finding
    return dataclasses.replace(finding, since=before.since, seen=before.seen + 1)
