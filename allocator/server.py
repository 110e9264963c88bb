"""The daemon's event loop: one thread, non-blocking sockets, one selector for connections, pidfds and
wake-ups.

    a pidfd is readable         a process ended: a hint for its grant, taken before the requests of the same
                                round, so that what it held can already be granted
    a connection is readable    whole frames are answered at once, in the order in which they came; one whose answer
                                takes a while is left alone until it is there
    somebody connects           mostly with a request that is there already, and is the last one: answered and closed
                                without having been waited for
    a time has come             grants that are due for a look; connections that took too long

Not asyncio: it costs the start of the daemon 50 ms, and one answer is short. Knows nothing of what the
answers are."""

from __future__ import annotations

import collections
import contextlib
import errno
import functools
import logging
import selectors
import socket
import struct
from collections.abc import Callable
from typing import Final

from gpuportion import wire
from gpuportion.allocator.connection import ClosedError, Connection, close_fds
from gpuportion.allocator.fault_points import here
from gpuportion.allocator.grants import now
from gpuportion.allocator.hints import Hints
from gpuportion.allocator.peer import Peer
from gpuportion.allocator.pending import Wait
from gpuportion.errors import GpuportionError

log: Final = logging.getLogger("gpuportiond")

BACKLOG: Final = 1024
MOST: Final = 1024
MOST_OF_OTHERS: Final = 128
MOST_OF_ONE: Final = 32
"""Connections: all; those of users other than root, so that root always gets one; those of one such user."""

PATIENCE: Final = 0.2
"""Seconds without accepting when the process has no descriptor left."""

AT_ONCE: Final = 8
"""Connections accepted before ended processes and earlier connections have their turn again."""

SLOW: Final = 1.0
"""Seconds between two looks at who takes too long: with a thousand connections it is not for every answer."""

UCRED: Final = struct.Struct("iII")


class Server:
    def __init__(
        self,
        selector: selectors.BaseSelector,
        listener: socket.socket,
        hints: Hints,
        answer: Callable[[Peer, wire.Message], Wait[wire.Message]],
        look: Callable[[str], None],
        settle: Callable[[], None] = lambda: None,
    ) -> None:
        """`look`: at what a token stands for, whose time has come. `settle`: do what nobody waits for, now that nobody
        does."""
        self._selector = selector
        self._listener = listener
        self._hints = hints
        self._answer = answer
        self._look = look
        self._settle = settle
        self._connections: set[Connection] = set()
        self._of_uid: collections.Counter[int] = collections.Counter()
        self._accepts_again: float | None = None
        self._slow_again = 0.0
        self._stopped = False
        listener.setblocking(False)
        self.on_readable(listener, self._accept)

    def on_readable(self, file: socket.socket | int, call: Callable[[], None]) -> None:
        self._selector.register(file, selectors.EVENT_READ, call)

    def stop(self) -> None:
        self._stopped = True

    def run(self) -> None:
        """Until `stop`."""
        while not self._stopped:
            self.round()
        for connection in list(self._connections):
            self._close(connection)

    def round(self, timeout: float | None = None) -> None:
        """Wait for something to happen, at most for `timeout` or until something is due, and deal with all that has."""
        events = self._selector.select(0)
        if not events:
            _guarded(self._settle)
            events = self._selector.select(self._timeout() if timeout is None else timeout)
        for key, _ in events:
            if key.data is self._hints:
                self._hints.take(now())
        self._look_at_due()
        for key, mask in events:
            if isinstance(key.data, Connection):
                self._serve(key.data, mask)
            elif callable(key.data):
                _guarded(key.data)
        self._look_at_due()
        self._end_slow()

    def _timeout(self) -> float | None:
        time = now()
        due = self._hints.timeout(time)
        slow = max(0.0, self._slow_again - time) if self._connections else None
        again = max(0.0, self._accepts_again - time) if self._accepts_again is not None else None
        return min((one for one in (due, slow, again) if one is not None), default=None)

    def _look_at_due(self) -> None:
        for token in self._hints.due(now()):
            try:
                self._look(token)
            except Exception:
                log.exception("a bug, met while looking at %s", token[:8])
                self._hints.later(token, now())

    # Connections

    def _accept(self) -> None:
        """Some of those that wait; of the others the selector tells again."""
        for _ in range(AT_ONCE):
            try:
                sock, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as problem:
                if problem.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    raise
                log.error("no descriptor is left for a connection: %s", problem)
                self._selector.unregister(self._listener)
                self._accepts_again = now() + PATIENCE
                return
            self._welcome(sock)

    def _welcome(self, sock: socket.socket) -> None:
        connection = Connection(sock, _peer(sock), now())
        if self._has_room(connection.peer):
            self._connections.add(connection)
            self._of_uid[connection.peer.uid] += 1
            self._serve(connection, selectors.EVENT_READ)
            return
        text = GpuportionError("GP303", why="there are too many connections; try again").text
        with contextlib.suppress(ClosedError):
            connection.answer(wire.Message({}, text.encode(), wire.REFUSED), now(), last=True)
        connection.close()

    def _has_room(self, peer: Peer) -> bool:
        if len(self._connections) >= MOST:
            return False
        others = len(self._connections) - self._of_uid[0]
        return peer.uid == 0 or (others < MOST_OF_OTHERS and self._of_uid[peer.uid] < MOST_OF_ONE)

    def _serve(self, connection: Connection, mask: int) -> None:
        try:
            if mask & selectors.EVENT_WRITE:
                connection.write(now())
            if mask & selectors.EVENT_READ:
                connection.read(now())
            self._answer_all(connection)
            if not connection.is_waiting:
                self._watch(
                    connection, selectors.EVENT_WRITE if connection.is_answering else selectors.EVENT_READ
                )
        except ClosedError:
            self._close(connection)

    def _watch(self, connection: Connection, wanted: int) -> None:
        """Hear of these events of it; 0: of none."""
        watched, connection.watched = connection.watched, wanted
        if watched == wanted:
            return
        if not wanted:
            self._selector.unregister(connection.sock)
        elif watched:
            self._selector.modify(connection.sock, wanted, connection)
        else:
            self._selector.register(connection.sock, wanted, connection)

    def _answer_all(self, connection: Connection) -> None:
        """Every whole frame that is there. ClosedError when the connection is over."""
        while True:
            try:
                message = connection.next_message()
            except wire.ProtocolError as problem:
                text = GpuportionError("GP304", why=str(problem)).text
                connection.answer(wire.Message({}, text.encode(), wire.REFUSED), now(), last=True)
                return
            if message is None:
                return
            try:
                waited = self._answer(connection.peer, message)
            finally:
                close_fds(message.fds)
            if not waited.is_over:
                connection.wait()
                self._watch(connection, 0)
            waited.then(functools.partial(self._send, connection))
            if connection.is_waiting:
                return

    def _send(self, connection: Connection, answer: wire.Message) -> None:
        """An answer is there, at once or after others were served."""
        here("answering")
        if connection not in self._connections:
            return
        late = connection.is_waiting
        try:
            connection.answer(answer, now())
        except ClosedError:
            if not late:
                raise
            self._close(connection)
            return
        if late:
            self._serve(connection, 0)

    def _end_slow(self) -> None:
        time = now()
        if self._slow_again <= time:
            self._slow_again = time + SLOW
            for connection in [one for one in self._connections if one.deadline <= time]:
                self._close(connection)
        if self._accepts_again is not None and self._accepts_again <= time:
            self._accepts_again = None
            self.on_readable(self._listener, self._accept)

    def _close(self, connection: Connection) -> None:
        self._connections.discard(connection)
        self._of_uid[connection.peer.uid] -= 1
        self._watch(connection, 0)
        connection.close()


def _guarded(call: Callable[[], None]) -> None:
    """A bug in one of them ends nobody else's service."""
    try:
        call()
    except Exception:
        log.exception("a bug, met beside the answers")


def _peer(sock: socket.socket) -> Peer:
    pid, uid, gid = UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, UCRED.size))
    return Peer(pid, uid, gid)
