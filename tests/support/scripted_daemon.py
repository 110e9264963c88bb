"""A listener on a real socket that answers what a test tells it to: also what the true daemon never would."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from gpuportion import wire

Script = Callable[[wire.Message], wire.Message | bytes | None]
"""Bytes are sent as they are; None: the connection is closed without an answer."""


class ScriptedDaemon:
    """Listens on `run_dir`/gpuportiond.sock. `seen` are the requests, in the order in which they came."""

    def __init__(self, run_dir: Path, script: Script) -> None:
        self.script = script
        self.seen: list[wire.Message] = []
        self._more = threading.Condition()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        run_dir.mkdir(parents=True, exist_ok=True)
        path = run_dir / "gpuportiond.sock"
        path.unlink(missing_ok=True)
        self._socket.bind(str(path))
        self._socket.listen(16)
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def wait_for(self, count: int) -> list[wire.Message]:
        """The requests once `count` of them have come: a note's sender does not wait for its receiver."""
        with self._more:
            assert self._more.wait_for(lambda: len(self.seen) >= count, timeout=30), self.seen
            return list(self.seen)

    def __enter__(self) -> ScriptedDaemon:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()
        for message in self.seen:
            for fd in message.fds:
                os.close(fd)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(30)
                self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        header, fds, _, _ = socket.recv_fds(connection, wire.HEADER.size, 4)
        status, n_head, n_body = wire.sizes(header)
        head, body = _exactly(connection, n_head), _exactly(connection, n_body)
        message = wire.decode(status, head, body, tuple(fds))
        with self._more:
            self.seen.append(message)
            self._more.notify_all()
        answer = self.script(message)
        # Who sent a note is gone already.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            if isinstance(answer, bytes):
                connection.sendall(answer)
            elif answer is not None:
                wire.send(connection, answer)


def _exactly(connection: socket.socket, n: int) -> bytes:
    got = b""
    while len(got) < n:
        piece = connection.recv(n - len(got))
        assert piece, "the client ended within a frame"
        got += piece
    return got
