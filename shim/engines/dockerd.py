"""Tells a running dockerd to read its configuration anew, and says what came of it.

Only the process that docker's pidfile names, and only if it really is dockerd, gets a SIGHUP: a stale pidfile
may name anybody. Knows nothing of what the configuration says.
"""

from __future__ import annotations

import os
import signal
from typing import Final

PROCESS: Final = "dockerd"
FLAGS: Final = ("--add-runtime", "--default-runtime")
"""Flags with which dockerd refuses to find the same in daemon.json: it would not start any more."""


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
        if os.path.basename(command[0] if command else "") != PROCESS:
            return [f"process {pid} of {pidfile} is not dockerd: restart docker yourself"]
        signal.pidfd_send_signal(pidfd, signal.SIGHUP)
    except OSError as problem:
        return [
            f"dockerd (process {pid}) was not told to reload ({problem.strerror}): restart docker yourself"
        ]
    finally:
        os.close(pidfd)
    return [f"told dockerd (process {pid}) to reload; running containers go on", *_warnings(command, config)]


def _pid(pidfile: str) -> int | None:
    try:
        with open(pidfile, encoding="ascii") as file:
            return int(file.read(32))
    except (OSError, ValueError):
        return None


def _command(pid: int) -> list[str]:
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        return [word.decode(errors="replace") for word in file.read().split(b"\0")[:-1]]


def _warnings(command: list[str], config: str) -> list[str]:
    """What in dockerd's own command line speaks against the file that was changed."""
    lines = []
    for flag in FLAGS:
        if any(word == flag or word.startswith(flag + "=") for word in command):
            lines.append(f"dockerd was started with {flag}: move that into {config}, or it won't start again")
    read = _option(command, "--config-file") or "/etc/docker/daemon.json"
    if os.path.realpath(read) != os.path.realpath(config):
        lines.append(f"this dockerd reads {read}, not {config}: name it with --config")
    return lines


def _option(command: list[str], name: str) -> str | None:
    for at, word in enumerate(command):
        if word == name and at + 1 < len(command):
            return command[at + 1]
        if word.startswith(name + "="):
            return word.partition("=")[2]
    return None
