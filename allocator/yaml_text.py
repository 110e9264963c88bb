"""YAML text -> plain objects, or a tree that knows its lines; a mistake becomes a sentence with its line.
The one importer of yaml."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import yaml

from gpuportion.errors import GpuportionError

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, slots=True)
class Marked:
    """A value and the line where it begins, from 1. Scalars are texts as they were written, so that `0.30` and
    `4G` keep their form; None is an empty place."""

    value: str | list[Marked] | dict[str, Marked] | None
    line: int


def load(text: str, source: str) -> object:
    """The one document in `text`. GpuportionError GP307 says where in `source` (a file) it is broken."""
    return _told(lambda: yaml.load(text, Loader=_Loader), source)


def marked(text: str, source: str) -> Marked | None:
    """The one document in `text` with its lines; None for an empty one. GpuportionError GP307 as `load`, and for
    a key that stands twice: the second would silently go over the first."""
    node = _told(lambda: yaml.compose(text, Loader=_Loader), source)
    return None if node is None else _told(lambda: _marked(node, source, set()), source)


T = TypeVar("T")


def _told(read: Callable[[], T], source: str) -> T:
    try:
        return read()
    except yaml.MarkedYAMLError as problem:
        mark = problem.problem_mark or problem.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "somewhere"
        why = problem.problem or problem.context or "it is not YAML"
        raise GpuportionError("GP307", source=source, where=where, why=why) from None
    except (yaml.YAMLError, ValueError, RecursionError) as problem:
        first = str(problem).splitlines()[0] if str(problem) else "it is nested too deeply"
        raise GpuportionError("GP307", source=source, where="somewhere", why=first) from None


def _marked(node: Any, source: str, seen: set[int]) -> Marked:
    line = node.start_mark.line + 1
    if id(node) in seen:  # a few lines of aliases can stand for a million, or for themselves
        raise GpuportionError(
            "GP307", source=source, where=f"line {line}", why="aliases (*name) are not read"
        )
    seen.add(id(node))
    if isinstance(node, yaml.ScalarNode):
        return Marked(None if node.tag == "tag:yaml.org,2002:null" else str(node.value), line)
    if isinstance(node, yaml.SequenceNode):
        return Marked([_marked(one, source, seen) for one in node.value], line)
    return Marked(dict(_pairs(node, source, seen)), line)


def _pairs(node: Any, source: str, seen: set[int]) -> Iterator[tuple[str, Marked]]:
    known = set()
    for key, value in node.value:
        where = f"line {key.start_mark.line + 1}"
        if not isinstance(key, yaml.ScalarNode):
            raise GpuportionError("GP307", source=source, where=where, why="a key must be a plain word")
        name = str(key.value)
        if name in known:
            raise GpuportionError("GP307", source=source, where=f"{where}, key {name}", why="it stands twice")
        known.add(name)
        yield name, _marked(value, source, seen)
