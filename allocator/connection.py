"""One connection, never waited for: bytes and descriptors in, frames out, within bounds.

Whoever may connect may also send nonsense, half a frame, or nothing for an hour; it costs one connection
and at most the bytes that this peer is allowed, for a few seconds. Knows nothing of operations or other
connections."""

from __future__ import annotations

import array
import contextlib
import os
import socket
from dataclasses import dataclass
from typing import Final

from gpuportion import wire
from gpuportion.allocator.fault_points import here
from gpuportion.allocator.peer import Peer

CHUNK: Final = 32 << 10
"""Bytes read at once: a usual config.json. A larger buffer would be mapped and unmapped for every read."""

MOST_FDS: Final = 4
"""Descriptors taken from one message; an operation needs one, the rest is closed."""

CONTROL: Final = socket.CMSG_SPACE(MOST_FDS * array.array("i").itemsize)
RECEIVE: Final = socket.MSG_CMSG_CLOEXEC | socket.MSG_DONTWAIT
SEND: Final = socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT

IDLE: Final = 60.0
FRAME: Final = 10.0
"""Seconds: between two requests; for a frame from its first to its last byte, in either direction."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """The largest frame that is taken, bytes."""

    head: int
    body: int


OF_ROOT: Final = Bounds(wire.MAX_JSON, wire.MAX_BODY)
OF_OTHERS: Final = Bounds(64 << 10, 0)


class ClosedError(Exception):
    """The connection is over."""


class Connection:
    def __init__(self, sock: socket.socket, peer: Peer, now: float) -> None:
        self.sock = sock
        self.peer = peer
        self.deadline = now + IDLE
        self.watched = 0
        """The events that the server hears of."""
        self._bounds = OF_ROOT if peer.uid == 0 else OF_OTHERS
        self._inbox = bytearray()
        self._fds: list[int] = []
        self._outbox: bytes | memoryview = b""
        self._is_last = False
        self.is_waiting = False

    @property
    def is_answering(self) -> bool:
        """Is there something left to send? Until then nothing more is read."""
        return bool(self._outbox)

    def read(self, now: float) -> None:
        """Take what has come. ClosedError at the end."""
        try:
            data, controls, _, _ = self.sock.recvmsg(CHUNK, CONTROL, RECEIVE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            raise ClosedError from None
        for level, kind, packed in controls:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                self._take_fds(packed)
        if not data:
            raise ClosedError
        if not self._inbox:
            self.deadline = now + FRAME
        self._inbox += data

    def next_message(self) -> wire.Message | None:
        """The next whole frame, if there is one and no answer is on its way. ProtocolError: the peer is mad.

        The caller closes its descriptors with `close_fds`.
        """
        if self.is_answering or self.is_waiting or len(self._inbox) < wire.HEADER.size:
            return None
        status, n_head, n_body = wire.sizes(self._inbox)
        if status != wire.REQUEST or n_head > self._bounds.head or n_body > self._bounds.body:
            raise wire.ProtocolError(f"a frame of {n_head} + {n_body} bytes is more than you may send")
        end = wire.HEADER.size + n_head + n_body
        if len(self._inbox) < end:
            return None
        with memoryview(self._inbox) as frame:
            head, body = bytes(frame[wire.HEADER.size : end - n_body]), bytes(frame[end - n_body : end])
        del self._inbox[:end]
        fds, self._fds = tuple(self._fds), []
        try:
            message = wire.decode(status, head, body, fds)
        except wire.ProtocolError:
            close_fds(fds)
            raise
        self._is_last = message.head.get("last") is True
        return message

    def wait(self) -> None:
        """The answer takes a while: until `answer` nothing is read, and no time runs out."""
        self.is_waiting = True
        self.deadline = float("inf")

    def answer(self, message: wire.Message, now: float, *, last: bool = False) -> None:
        """Begin to send; `last`: the connection is over after it."""
        self.is_waiting = False
        self._outbox = wire.encode(message)
        self._is_last |= last
        self.deadline = now + FRAME
        self.write(now)

    def write(self, now: float) -> None:
        """Send what can be sent now. ClosedError when there is nobody to read it, or nothing more to say."""
        while self._outbox:
            try:
                sent = self.sock.send(self._outbox, SEND)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                raise ClosedError from None
            self._outbox = memoryview(self._outbox)[sent:]
        here("answered")
        if self._is_last:
            raise ClosedError
        self.deadline = now + (FRAME if self._inbox else IDLE)

    def close(self) -> None:
        close_fds(self._fds)
        self._fds = []
        self.sock.close()

    def _take_fds(self, packed: bytes) -> None:
        fds = array.array("i")
        fds.frombytes(packed[: len(packed) - len(packed) % fds.itemsize])
        keep = max(0, MOST_FDS - len(self._fds))
        self._fds += fds[:keep]
        close_fds(fds[keep:])


def close_fds(fds: object) -> None:
    for fd in fds if isinstance(fds, (list, tuple, array.array)) else ():
        with contextlib.suppress(OSError):
            os.close(fd)
