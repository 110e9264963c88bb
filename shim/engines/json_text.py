"""Sets and removes members in the text of a JSON document, and leaves every other byte as it is.

An administrator's daemon.json has an order, an indentation and numbers written in some way; parsing it and
writing it anew would lose them. So the text is only cut open where a member goes in or out. Knows nothing of
engines. The text must be valid JSON with an object at its top: `check` first.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from json.decoder import scanstring  # type: ignore[attr-defined]  # undocumented, and stable since 2.6
from typing import Any, Final

from gpuportion.errors import GpuportionError

_BLANK: Final = re.compile(r"[ \t\r\n]*")
_DECODER: Final = json.JSONDecoder()
DEFAULT_INDENT: Final = "    "


@dataclass(frozen=True, slots=True)
class Member:
    """One member of an object, as places in the text: `start` is its key's quote, `end` behind its value."""

    key: str
    start: int
    value_start: int
    end: int


def check(text: str, source: str) -> dict[str, Any]:
    """The object in `text`. GpuportionError GP307 with line and column if it is none, or has a key twice."""
    try:
        found = json.loads(text, object_pairs_hook=_unique)
    except json.JSONDecodeError as problem:
        where = f"line {problem.lineno}, column {problem.colno}"
        raise GpuportionError(
            "GP307", source=source, where=where, why=f"{problem.msg}. Mend it first."
        ) from None
    except (ValueError, RecursionError) as problem:
        raise GpuportionError(
            "GP307", source=source, where="somewhere", why=f"{problem}. Mend it first."
        ) from None
    if not isinstance(found, dict):
        raise GpuportionError(
            "GP307", source=source, where="line 1", why="it is not a JSON object. Mend it first."
        )
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {json.dumps(twice)} stands twice in one object")
    return found


def put(text: str, path: Sequence[str], value: object) -> str:
    """The text with the member at `path` set; objects on the way are made where they are missing."""
    start = _BLANK.match(text).end()  # type: ignore[union-attr]  # matches the empty text too
    for depth, key in enumerate(path):
        member = _member(text, start, key)
        if member is None:
            inner: object = value
            for missing in reversed(path[depth + 1 :]):
                inner = {missing: inner}
            return _inserted(text, start, depth, key, inner)
        start = member.value_start
    assert member is not None  # the path is not empty
    return text[:start] + _dumped(value, _indent(text), len(path)) + text[member.end :]


def cut(text: str, path: Sequence[str]) -> str:
    """The text without the member at `path`; the text itself where there is none."""
    start = _BLANK.match(text).end()  # type: ignore[union-attr]
    for key in path[:-1]:
        member = _member(text, start, key)
        if member is None or text[member.value_start] != "{":
            return text
        start = member.value_start
    members = _members(text, start)
    at = next((at for at, member in enumerate(members) if member.key == path[-1]), None)
    if at is None:
        return text
    if at + 1 < len(members):
        return text[: members[at].start] + text[members[at + 1].start :]
    if at > 0:
        return text[: members[at - 1].end] + text[members[at].end :]
    closing = _skip(text, members[at].end)
    return text[: start + 1] + text[closing:]


def position(text: str, path: Sequence[str]) -> str:
    """Where the value at `path` stands, for messages: `line 3, column 5`."""
    at = _skip(text, 0)
    for key in path:
        member = _member(text, at, key)
        if member is None:
            break
        at = member.value_start
    before = text[:at]
    return f"line {before.count(chr(10)) + 1}, column {at - before.rfind(chr(10))}"


def _member(text: str, start: int, key: str) -> Member | None:
    return next((member for member in _members(text, start) if member.key == key), None)


def _members(text: str, start: int) -> list[Member]:
    """The members of the object whose brace stands at `start`."""
    members: list[Member] = []
    at = _skip(text, start + 1)
    while text[at] != "}":
        key, behind = scanstring(text, at + 1)
        value_start = _skip(text, _skip(text, behind) + 1)
        _, end = _DECODER.raw_decode(text, value_start)
        members.append(Member(key, at, value_start, end))
        at = _skip(text, end)
        if text[at] == ",":
            at = _skip(text, at + 1)
    return members


def _skip(text: str, at: int) -> int:
    return _BLANK.match(text, at).end()  # type: ignore[union-attr]


def _inserted(text: str, start: int, depth: int, key: str, value: object) -> str:
    """A new last member of the object at `start`, which is `depth` objects deep."""
    members, indent = _members(text, start), _indent(text)
    new = f"{json.dumps(key)}: {_dumped(value, indent, depth + 1)}"
    before, behind = ("", "") if indent is None else (_line(indent, depth + 1), _line(indent, depth))
    if members:
        comma = ", " if indent is None else f",{before}"
        return text[: members[-1].end] + comma + new + text[members[-1].end :]
    return text[: start + 1] + before + new + behind + text[_skip(text, start + 1) :]


def _indent(text: str) -> str | None:
    """What one level is indented by: as the first indented member, else as docker's own documentation; None:
    all stands on one line, and so it stays."""
    found = re.search(r'\{[ \t]*\r?\n([ \t]+)"', text)
    if found:
        return found[1]
    body = text.strip()
    return DEFAULT_INDENT if "\n" in body or not body.strip("{} \t") else None


def _line(indent: str, depth: int) -> str:
    return "\n" + indent * depth


def _dumped(value: object, indent: str | None, depth: int) -> str:
    if indent is None:
        return json.dumps(value, ensure_ascii=False)
    return json.dumps(value, indent=indent, ensure_ascii=False).replace("\n", _line(indent, depth))
