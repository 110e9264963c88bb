"""Who is at the other end of a connection."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True)
class Peer:
    """As the kernel says. `pid` is 0 where it is in no pid namespace of ours."""

    pid: int
    uid: int
    gid: int
