"""Which grants' pages are mounted, as the kernel's list of a process's mounts (mountinfo) tells it.

A mount may have any name that a container chooses, so names are never taken for more than what they are. Pure: the
text of the list in, values out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

TOKEN: Final = re.compile(r"[0-9a-f]{32}")


def where(mountinfo: str, folder: str) -> tuple[str, str]:
    """(device, path within its file system) of a folder, as mountinfo tells them of what is mounted from it."""
    best = "", "", ""
    for fields in _lines(mountinfo):
        device, root, point = fields[2], _unescaped(fields[3]), _unescaped(fields[4])
        inside = f"{folder}/".startswith(f"{point.rstrip('/')}/")
        if inside and len(point) >= len(best[0]):  # a later one lies over an earlier one
            best = point, device, root.rstrip("/") + folder[len(point.rstrip("/")) :]
    return best[1:]


def tokens_of(mountinfo: str, place: tuple[str, str]) -> Iterator[str]:
    """Tokens of which something is mounted: their policy, or the whole folder."""
    for fields in _lines(mountinfo):
        root = _unescaped(fields[3])
        if fields[2] == place[0] and root.startswith(f"{place[1]}/"):
            token = root[len(place[1]) + 1 :].partition("/")[0]
            if TOKEN.fullmatch(token):
                yield token


def _lines(mountinfo: str) -> Iterator[list[str]]:
    """The fields of each line. The kernel parts them by a blank and a newline; all else that Python takes for space can
    be in the name of a mount, which a container may choose."""
    return (line.split(" ") for line in mountinfo.split("\n") if line)


def _unescaped(text: str) -> str:
    """A path as mountinfo writes it: space, tab, newline and backslash in octal."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found.group(1), 8)), text)
