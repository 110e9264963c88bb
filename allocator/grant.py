"""A grant as a value: what is promised to whom, and who lives by it. Knows nothing of where it is written."""

from __future__ import annotations

import dataclasses
import operator
from dataclasses import dataclass
from typing import Any, Final

from gpuportion.allocator.devices import Share
from gpuportion.allocator.lifecycle import State
from gpuportion.allocator.mig.portion import MigPortion
from gpuportion.allocator.processes import Living, Process


@dataclass(frozen=True, slots=True)
class Grant:
    """`created` and `deadline` in seconds of CLOCK_BOOTTIME; `shares` in the container's order.

    (`root`, `id`, `generation`) names it: `root` is the low-level runtime's --root. `creator` is who is
    making the container, `holder` its first process. `cgroups` are the folders that are empty when it has
    ended; () where it has none for itself."""

    token: str
    boot: str
    kind: str
    root: str
    id: str
    uid: int
    shares: tuple[Share, ...]
    created: float
    deadline: float
    name: str = ""
    user: str = ""
    request: dict[str, Any] = dataclasses.field(default_factory=dict)
    creator: Process | None = None
    holder: Process | None = None
    cgroups: tuple[str, ...] = ()
    state: State = State.RESERVED
    generation: int = 0

    @property
    def owner(self) -> str:
        """Whose it is, as the rules for users count: a uid, or the name that an annotation gave."""
        return self.user or str(self.uid)

    @property
    def label(self) -> str:
        """How messages call it."""
        return self.name or self.id[:12] or f"pid {self.holder.pid if self.holder else '?'}"

    @property
    def mig(self) -> MigPortion | None:
        """The MIG instance that it is, where it is one: then it has no other share, and no pages."""
        return self.shares[0].mig if self.shares else None

    def changed(self, **changes: Any) -> Grant:
        """As dataclasses.replace, in half of its time: a grant's life does it three times."""
        after = object.__new__(Grant)
        for put, value in zip(_PUT, _VALUES(self), strict=True):
            put(after, value)
        for name, value in changes.items():
            object.__setattr__(after, name, value)
        return after


_NAMES: Final = tuple(field.name for field in dataclasses.fields(Grant))
_VALUES: Final = operator.attrgetter(*_NAMES)
_PUT: Final = tuple(vars(Grant)[name].__set__ for name in _NAMES)


@dataclass(frozen=True, slots=True)
class Intent:
    """A grant to be made: who for, and by whom it is asked. `root`, `id`: as `Grant` has them. The descriptor of
    `creator` belongs to whoever reserves it."""

    kind: str
    shares: tuple[Share, ...]
    request: dict[str, Any]
    root: str = ""
    id: str = ""
    name: str = ""
    uid: int = 0
    user: str = ""
    creator: Living | None = None
