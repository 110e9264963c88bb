"""Frames as they come on a stream, cut where they end. Knows nothing of what they say."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from gpuportion import wire

CHUNK: Final = 1 << 16
"""Bytes read at once: several usual specs. A larger buffer would be mapped and unmapped for every read."""

FAILED: Final = 2
"""A status: a bug, which the editor has logged."""


class Told(NamedTuple):
    """One frame; `head` is JSON."""

    status: int
    head: bytes
    body: bytes


class Frames:
    def __init__(self) -> None:
        self._inbox = bytearray()

    def take(self, data: bytes) -> Iterator[Told]:
        """The frames that are whole with these bytes. ProtocolError: it is none of ours."""
        self._inbox += data
        while len(self._inbox) >= wire.HEADER.size:
            status, n_head, n_body = wire.sizes(self._inbox)
            body = wire.HEADER.size + n_head
            end = body + n_body
            if len(self._inbox) < end:
                return
            with memoryview(self._inbox) as inbox:
                told = Told(status, bytes(inbox[wire.HEADER.size : body]), bytes(inbox[body:end]))
            del self._inbox[:end]
            yield told
