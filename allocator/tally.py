"""What live grants come to: on each GPU, and which are a container's or a user's. Kept with every change of a row, so
that a grant costs the same beside two thousand others as beside ten.

Pure: it is told of grants, and knows nothing of where they are written."""

from __future__ import annotations

import collections
from collections.abc import Iterable
from typing import TypeVar

from gpuportion.allocator.devices import NOTHING, Load, Share
from gpuportion.allocator.grant import Grant
from gpuportion.allocator.lifecycle import State

K = TypeVar("K")


class Tally:
    def __init__(self, grants: Iterable[Grant] = ()) -> None:
        """Of these grants; those that are released count for nothing."""
        self.loads: dict[str, Load] = {}
        """By the GPU's UUID; a GPU that nobody has isn't there."""
        self._by_container: dict[tuple[str, str], dict[str, Grant]] = collections.defaultdict(dict)
        self._by_owner: dict[str, dict[str, Grant]] = collections.defaultdict(dict)
        for grant in grants:
            self.change(None, grant)

    def change(self, before: Grant | None, after: Grant | None) -> None:
        """A row came, became another one of the same grant, or went."""
        counted, counts = _counted(before), _counted(after)
        if counted is not counts:
            self._take(counted, -1)
            self._take(counts, 1)
        if after is not None and after.state is not State.RELEASED:
            self._by_container[after.root, after.id][after.token] = after
            self._by_owner[after.owner][after.token] = after
        elif before is not None:
            _drop(self._by_container, (before.root, before.id), before.token)
            _drop(self._by_owner, before.owner, before.token)

    def of_container(self, root: str, id: str) -> list[Grant]:
        """The oldest first."""
        return list(self._by_container.get((root, id), {}).values())

    def of_owner(self, owner: str) -> list[Grant]:
        """Of one user, as the rules for users count; the oldest first."""
        return list(self._by_owner.get(owner, {}).values())

    def _take(self, shares: tuple[Share, ...], sign: int) -> None:
        for share in shares:
            load = self.loads.get(share.uuid, NOTHING).changed(share, sign)
            if load.shares:
                self.loads[share.uuid] = load
            else:
                del self.loads[share.uuid]


def _counted(grant: Grant | None) -> tuple[Share, ...]:
    return () if grant is None or grant.state is State.RELEASED else grant.shares


def _drop(index: dict[K, dict[str, Grant]], key: K, token: str) -> None:
    """No empty entry stays: containers' ids never come to an end."""
    found = index.get(key)
    if found is not None:
        found.pop(token, None)
        if not found:
            del index[key]
