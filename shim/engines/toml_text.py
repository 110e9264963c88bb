"""Reads TOML, writes tables of our own, and edits one array of somebody else's file in place.

Comments and layout of a file that is not ours must stay, so no library writes it: an edit tries the few ways
in which an array can be spelt, and takes the one that reads back as meant.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Mapping
from typing import Any, Final

from gpuportion.errors import GpuportionError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Table = Mapping[str, Any]
BARE: Final = re.compile(r"[A-Za-z0-9_-]+")
MISTAKE: Final = re.compile(r"(?P<why>.*) \(at (?P<where>.*)\)", re.DOTALL)
VERSION: Final = re.compile(r"^[ \t]*version[ \t]*=.*\n", re.MULTILINE)


def parse(text: str | None, source: str) -> dict[str, Any]:
    """The tables of a text; none: {}. GpuportionError GP307 with the place of a mistake."""
    try:
        return tomllib.loads(text or "")
    except tomllib.TOMLDecodeError as problem:
        said = MISTAKE.fullmatch(str(problem))
        where, why = (said["where"], said["why"]) if said else ("somewhere", str(problem))
        raise GpuportionError("GP307", source=source, where=where, why=f"{why}. Mend it first.") from None


def inner(table: Table, *path: str) -> dict[str, Any]:
    """The table below `path`; {} where there is none."""
    found: Any = table
    for key in path:
        found = found.get(key) if isinstance(found, Mapping) else None
    return dict(found) if isinstance(found, Mapping) else {}


def write(table: Table, path: tuple[str, ...] = ()) -> str:
    """The table as TOML: its values, then its tables, each with its whole name."""
    values = {key: value for key, value in table.items() if not isinstance(value, Mapping)}
    lines = [f"{_key(key)} = {literal(value)}\n" for key, value in values.items()]
    header = f"[{'.'.join(map(_key, path))}]\n" if path and (values or not table) else ""
    tables = [write(value, (*path, key)) for key, value in table.items() if isinstance(value, Mapping)]
    own = header + "".join(lines)
    return "\n".join(part for part in (own, *tables) if part)


def literal(value: object) -> str:
    """A value as TOML spells it."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{_key(key)} = {literal(item)}' for key, item in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(literal, value))}]"
    return str(value).lower()  # booleans


def _key(key: str) -> str:
    return key if BARE.fullmatch(key) else literal(key)


def append(text: str, key: str, item: str, source: str) -> str:
    """The text with `item` as the last of the top level's array `key`. GP307 if that can't be done."""
    parsed = parse(text, source)
    wanted = {**parsed, key: [*parsed.get(key, []), item]}
    why = f"add {literal(item)} to {key} by hand: the place for it was not found"
    return _first(_with(text, key, literal(item)), wanted, source, why)


def remove(text: str, key: str, item: str, source: str) -> str:
    """The text without `item` in the array `key`, and without the array if nothing else was in it."""
    parsed = parse(text, source)
    if item not in parsed.get(key, []):
        return text
    left = [value for value in parsed[key] if value != item]
    wanted = {**parsed, key: left}
    if not left:
        del wanted[key]
    why = f"take {literal(item)} out of {key} by hand: its place was not found"
    return _first(_without(text, key, item), wanted, source, why)


def _first(spellings: Iterable[str], wanted: Table, source: str, why: str) -> str:
    for text in spellings:
        try:
            if tomllib.loads(text) == wanted:
                return text
        except tomllib.TOMLDecodeError:
            continue
    raise GpuportionError("GP307", source=source, where="top level", why=why)


def _with(text: str, key: str, item: str) -> Iterable[str]:
    for _, end in _arrays(text, key):
        for glue in (f", {item}", item):
            yield text[: end - 1] + glue + text[end - 1 :]
    line = f"{key} = [{item}]\n"
    for found in VERSION.finditer(text):
        yield text[: found.end()] + line + text[found.end() :]
    yield line + text


def _without(text: str, key: str, item: str) -> Iterable[str]:
    for start, end in _arrays(text, key):
        yield text[:start] + text[end:].removeprefix("\n")
        for quoted in (literal(item), f"'{item}'"):
            for spelt in (rf",\s*{re.escape(quoted)}", rf"{re.escape(quoted)}\s*,[ \t]*", re.escape(quoted)):
                for found in re.finditer(spelt, text[start:end]):
                    yield text[: start + found.start()] + text[start + found.end() :]


def _arrays(text: str, key: str) -> Iterable[tuple[int, int]]:
    """(start, end) of each statement that may be the top level's array `key`."""
    for found in re.finditer(rf'^[ \t]*"?{key}"?[ \t]*=[ \t]*\[', text, re.MULTILINE):
        end = _closing(text, found.end() - 1)
        if end is not None:
            yield found.start(), end


def _closing(text: str, start: int) -> int | None:
    """Past the bracket that ends the array which begins at `start`: the first with which it can be read."""
    for found in re.finditer("]", text[start:]):
        try:
            tomllib.loads(f"array = {text[start : start + found.end()]}")
        except tomllib.TOMLDecodeError:
            continue
        return start + found.end()
    return None
