"""Tells a running dockerd to read its configuration anew, and asks it what it has come to know.

Only the process that docker's pidfile names, and only if it really is dockerd, gets a SIGHUP: a stale pidfile
may name anybody. Knows nothing of what the configuration is to say.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterable
from typing import Any, Final

PROCESS: Final = "dockerd"
FLAGS: Final = ("--add-runtime", "--default-runtime")
"""Flags with which dockerd refuses to find the same in daemon.json: it would not start any more."""
SOCKET: Final = "/var/run/docker.sock"
"""Where dockerd listens if nothing else is said; systemd's socket unit too (`-H fd://`)."""
SETTLING: Final = 30.0
"""Seconds for a reload, which only parses a file; a busy dockerd may be at something else first."""
MAX_INFO: Final = 4 << 20


def reload(config: str, pidfile: str) -> list[str]:
    """SIGHUP to the dockerd of `pidfile`; lines that say what was done and what is left to the user."""
    pid = _pid(pidfile)
    if pid is None:
        return [f"docker is not running (no dockerd by {pidfile}): it reads the file when it starts"]
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return [f"docker is not running (no dockerd by {pidfile}): it reads the file when it starts"]
    try:
        command = _command(pid)  # asked while the descriptor holds the pid: it can't become another's
        if not _is_dockerd(command):
            return [f"process {pid} of {pidfile} is not dockerd: restart docker yourself"]
        signal.pidfd_send_signal(pidfd, signal.SIGHUP)
    except OSError as problem:
        return [
            f"dockerd (process {pid}) was not told to reload ({problem.strerror}): restart docker yourself"
        ]
    finally:
        os.close(pidfd)
    return [f"told dockerd (process {pid}) to reload; running containers go on", *_warnings(command, config)]


def reads(config: str, pidfile: str) -> bool:
    """Whether the dockerd of `pidfile` runs and has its configuration from that file."""
    pid = _pid(pidfile)
    try:
        command = [] if pid is None else _command(pid)
    except OSError:
        return False
    return _is_dockerd(command) and _is_same(_config(command), config)


def info(hosts: Iterable[str] = ()) -> dict[str, Any] | None:
    """What dockerd says of itself (`GET /info`), by the first of its unix sockets that answers; None: none
    does. `hosts`: those of its configuration."""
    paths = [host.removeprefix("unix://") for host in hosts if host.startswith("unix://")] or [SOCKET]
    return next((told for path in paths if (told := _asked(path)) is not None), None)


def settles(is_settled: Callable[[dict[str, Any]], bool], hosts: Iterable[str] = ()) -> bool:
    """Whether what dockerd says of itself comes to fit before SETTLING seconds are over."""
    deadline = time.monotonic() + SETTLING
    while time.monotonic() < deadline:
        told = info(hosts)
        if told is not None and is_settled(told):
            return True
        time.sleep(0.05)
    return False


def _asked(path: str) -> dict[str, Any] | None:
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(5)
            sock.connect(path)
            sock.sendall(b"GET /info HTTP/1.0\r\nHost: docker\r\n\r\n")
            with sock.makefile("rb") as answer:
                _, _, body = answer.read(MAX_INFO).partition(b"\r\n\r\n")
        told = json.loads(body)
    except (OSError, ValueError):
        return None
    return told if isinstance(told, dict) and "Runtimes" in told else None


def _pid(pidfile: str) -> int | None:
    try:
        with open(pidfile, encoding="ascii") as file:
            return int(file.read(32))
    except (OSError, ValueError):
        return None


def _command(pid: int) -> list[str]:
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        return [word.decode(errors="replace") for word in file.read().split(b"\0")[:-1]]


def _is_dockerd(command: list[str]) -> bool:
    return bool(command) and os.path.basename(command[0]) == PROCESS


def _config(command: list[str]) -> str:
    return _option(command, "--config-file") or "/etc/docker/daemon.json"


def _is_same(one: str, other: str) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)


def _warnings(command: list[str], config: str) -> list[str]:
    """What in dockerd's own command line speaks against the file that was changed."""
    lines = []
    for flag in FLAGS:
        if any(word == flag or word.startswith(flag + "=") for word in command):
            lines.append(f"dockerd was started with {flag}: move that into {config}, or it won't start again")
    if not _is_same(_config(command), config):
        lines.append(f"this dockerd reads {_config(command)}, not {config}: name it with --config")
    return lines


def _option(command: list[str], name: str) -> str | None:
    for at, word in enumerate(command):
        if word == name and at + 1 < len(command):
            return command[at + 1]
        if word.startswith(name + "="):
            return word.partition("=")[2]
    return None
