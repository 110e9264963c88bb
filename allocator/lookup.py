"""Which grant somebody means by a word: a container's name, its id or how that begins, or `pid-41`.

Pure. Knows nothing of engines: names are those that were known when the grant was made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from gpuportion.allocator.store import Grant
from gpuportion.errors import GpuportionError

NAMED: Final = 8
"""Grants that a message names."""

WAYS: Final[tuple[Callable[[Grant, str], bool], ...]] = (
    # the first way by which any grant is meant decides
    lambda grant, word: grant.id == word,
    lambda grant, word: grant.name == word,
    lambda grant, word: grant.id.startswith(word),
)


def find(grants: Sequence[Grant], word: str) -> Grant:
    """The one grant that `word` means. GpuportionError GP305 if it means none or several."""
    for means in WAYS:
        found = [grant for grant in grants if word and means(grant, word)]
        if len(found) == 1:
            return found[0]
        if found:
            why = f"it may be {_listed(found)}. Write more of the id."
            raise GpuportionError("GP305", what=f"one container {word[:80]!r}", why=why)
    here = f"There are {_listed(grants)}." if grants else "Nobody holds one now."
    why = f"no grant has this name or id. {here}"
    raise GpuportionError("GP305", what=f"a container {word[:80]!r} with a portion", why=why)


def _listed(grants: Sequence[Grant]) -> str:
    names = [f"{grant.id[:12]} ({grant.name})" if grant.name else grant.id[:12] for grant in grants]
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
