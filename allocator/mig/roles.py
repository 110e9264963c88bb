"""Which GPUs serve by MIG, and not by fractions: those with the MIG role.

What plans asks one thing, `has_mig_role`. Knows nothing of instances and requests."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol


class Roles(Protocol):
    """Whoever knows the roles of this node's GPUs."""

    def has_mig_role(self, uuid: str) -> bool:
        """Whether the GPU of this UUID serves by MIG. One without MIG mode on now can serve nobody then."""
        ...


class ByMode:
    """Roles where nobody gave any: a GPU in MIG mode can serve by MIG alone."""

    def __init__(self) -> None:
        self._in_mode: frozenset[str] = frozenset()

    def update(self, in_mode: Iterable[str]) -> None:
        """These GPUs are in MIG mode now."""
        self._in_mode = frozenset(in_mode)

    def has_mig_role(self, uuid: str) -> bool:
        return uuid in self._in_mode
