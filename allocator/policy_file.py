"""Reads the administrator's rules from their file. What a line means is in policy_keys.py."""

from __future__ import annotations

import os
import pwd
import stat
from typing import Final

from gpuportion.allocator import policy_keys, yaml_text
from gpuportion.allocator.policy import Policy
from gpuportion.errors import GpuportionError

PATH: Final = "/etc/gpuportion/config.yaml"
MAX_BYTES: Final = 1 << 20
FLAGS: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK


def read(path: str) -> Policy:
    """The rules in the file at `path`. GpuportionError GP307 for a mistake, GP306 where it can't be read."""
    return parse(_text(path, trusted=False), path)


def read_trusted(path: str, *, needed: bool) -> Policy:
    """As `read`, for the daemon: a file that others than root (or than who runs the daemon) may write says
    nothing. One that is not there has no rules, unless it is `needed`."""
    try:
        return parse(_text(path, trusted=True), path)
    except FileNotFoundError:
        if needed:
            why = "it is not there. Make it, or leave out --config: then nothing is restricted"
            raise GpuportionError("GP306", what=f"reading {path}", why=why) from None
        return Policy()


def parse(text: str, source: str) -> Policy:
    return policy_keys.parse(yaml_text.marked(text, source), source, uid_of)


def uid_of(name: str) -> int | None:
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        return None


def _text(path: str, *, trusted: bool) -> str:
    try:
        with open(os.open(path, FLAGS), "rb") as file:
            is_ = os.fstat(file.fileno())
            if not stat.S_ISREG(is_.st_mode):
                raise GpuportionError("GP306", what=f"reading {path}", why="it is no plain file")
            if trusted and (is_.st_uid not in (0, os.geteuid()) or is_.st_mode & 0o022):
                why = "others than root can write it. Mend: chown root, chmod go-w"
                raise GpuportionError("GP306", what=f"reading {path}", why=why)
            raw = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise
    except OSError as problem:
        raise GpuportionError("GP306", what=f"reading {path}", why=str(problem.strerror)) from None
    if len(raw) > MAX_BYTES:
        raise GpuportionError("GP306", what=f"reading {path}", why=f"it has more than {MAX_BYTES} bytes")
    try:
        return raw.decode()
    except UnicodeDecodeError as problem:
        line = raw.count(b"\n", 0, problem.start) + 1
        raise GpuportionError("GP307", source=path, where=f"line {line}", why="it is not UTF-8") from None
