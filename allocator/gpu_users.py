"""Who uses a GPU now, by the names that a message can say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from gpuportion.allocator.attribution import Held
from gpuportion.allocator.processes import name_of, start_of
from gpuportion.allocator.store import Grant


@dataclass(frozen=True, slots=True)
class Users:
    """Containers (or processes) with a portion, by name, and processes without one: `pid 41 python`."""

    portions: tuple[str, ...] = ()
    strangers: tuple[str, ...] = ()


def users_of(uuid: str, grants: Iterable[Grant], processes: Mapping[str, Sequence[Held]]) -> Users:
    """Of the GPU of this UUID. `processes`: by GPU, what each holds, as NVML said last."""
    portions = [grant.label for grant in grants if any(share.uuid == uuid for share in grant.shares)]
    strangers = [
        _called(held.pid) for held in processes.get(uuid, ()) if held.token == "" and _lives(held.pid)
    ]
    return Users(tuple(portions), tuple(strangers))


def _lives(pid: int) -> bool:
    """The look that told of it may be a second old."""
    return start_of(pid) is not None


def _called(pid: int) -> str:
    return f"pid {pid} {name_of(pid)}".rstrip()
