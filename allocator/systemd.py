"""What systemd and the daemon tell each other, and the same without it: the listening socket, and READY=1.

sd_listen_fds(3), sd_notify(3): two environment variables and a datagram, so no library is needed.
"""

from __future__ import annotations

import contextlib
import grp
import logging
import os
import socket
from typing import Final

log: Final = logging.getLogger("gpuportiond")

FIRST_FD: Final = 3


def inherited_listener() -> socket.socket | None:
    """The socket that systemd listens on for us; None: it does not. The variables are gone afterwards."""
    pid, count = os.environ.pop("LISTEN_PID", ""), os.environ.pop("LISTEN_FDS", "")
    os.environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or count != "1":
        return None
    os.set_inheritable(FIRST_FD, False)
    return socket.socket(fileno=FIRST_FD)


def listen(path: str, group: str, backlog: int) -> socket.socket:
    """Our own socket, 0660 root:`group`. The caller holds the daemon's lock, so one that is there is dead."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        listener.bind(path)
    finally:
        os.umask(before)
    _give_to(path, group)
    os.chmod(path, 0o660)
    listener.listen(backlog)
    return listener


def _give_to(path: str, group: str) -> None:
    try:
        os.chown(path, -1, grp.getgrnam(group).gr_gid)
    except KeyError:
        log.info("there is no group %s: only root may connect", group)
    except PermissionError:
        log.info("this user cannot give the socket to the group %s", group)


def notify(state: str) -> None:
    """Tell systemd, where it is there, such as `READY=1`."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock, contextlib.suppress(OSError):
        sock.sendto(state.encode(), address)
