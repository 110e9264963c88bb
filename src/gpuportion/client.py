"""Asks the daemon one question: connect, send, wait for the answer."""

from __future__ import annotations

import socket
import time
from typing import Any, Final

from gpuportion import paths, wire
from gpuportion.errors import GpuportionError, RefusedError

VERSION: Final = 1
WAIT: Final = 40.0
"""Seconds; making a MIG instance takes time, and so does a daemon that its socket unit is starting."""


def ask(
    op: str, *, body: bytes = b"", fds: tuple[int, ...] = (), wait: float = WAIT, **values: Any
) -> wire.Message:
    """The daemon's answer to `op`. RefusedError if it refuses, GpuportionError GP301 if it does not answer."""
    path = paths.socket_path()
    began = time.monotonic()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(wait)
        try:
            sock.connect(path)
            head = {"v": VERSION, "op": op, **values, "last": True}
            wire.send(sock, wire.Message(head, body, wire.REQUEST, fds))
            answer = wire.receive(sock)
        except PermissionError:
            join = "Run it as root, or join: usermod -aG gpuportion USER."
            why = f"{path} is for root and the group gpuportion. {join}"
            raise GpuportionError("GP303", why=why) from None
        except (OSError, wire.ProtocolError):
            raise GpuportionError("GP301", socket=path, waited=int(time.monotonic() - began)) from None
    if answer.status != wire.OK:
        raise RefusedError(answer.body.decode(errors="replace"))
    return answer
