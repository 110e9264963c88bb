"""Choices and values out of the bytes that a fuzzer gives: the same bytes are always the same input."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Final, TypeVar

Value = TypeVar("Value")

ODD: Final[tuple[Any, ...]] = (
    # what a JSON document can hold where something else was expected
    *(None, True, False, 0, -1, 1, 2**31, 2**63, 10**400, -0.0, 0.5, 1e308, float("nan"), float("inf")),
    *("", "\0", "\ud800", "é" * 300, "a" * 5000, "/", "/../..", "//dev//nvidia0", "../libcuda.so.1", "all"),
    *([], {}, [[]], [None], [{}], {"": None}, {"\0": []}),
)


class Source:
    """Runs dry instead of failing: then all is 0 and empty."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def is_dry(self) -> bool:
        return self._at >= len(self._data)

    def take(self, count: int) -> bytes:
        taken = self._data[self._at : self._at + count]
        self._at += count
        return taken

    def number(self, most: int) -> int:
        """0 to `most`."""
        size = (most.bit_length() + 7) // 8
        return int.from_bytes(self.take(size), "little") % (most + 1)

    def one_of(self, values: Sequence[Value]) -> Value:
        return values[self.number(len(values) - 1)]

    def text(self) -> str:
        return self.take(self.number(63)).decode("utf-8", "surrogateescape")

    def rest(self) -> bytes:
        return self.take(len(self._data))


def changed(document: Any, source: Source, words: Sequence[str]) -> Any:
    """A JSON document with one place changed: something odd there, one of `words` and text, nothing, or it twice."""
    if not isinstance(document, (dict, list)) or not document or source.number(7) == 0:
        return _replacement(source, words)
    keys = list(document) if isinstance(document, dict) else list(range(len(document)))
    key = source.one_of(keys)
    what = source.number(9)
    if what == 0:
        del document[key]
    elif what == 1 and isinstance(document, list):
        document.append(_replacement(source, words))
    elif what == 2 and isinstance(document, dict):
        document[source.one_of(words)] = _replacement(source, words)
    else:
        document[key] = changed(document[key], source, words)
    return document


def _replacement(source: Source, words: Sequence[str]) -> Any:
    what = source.number(4)
    if what == 0:
        return copy.deepcopy(source.one_of(ODD))
    if what == 1:
        return source.text()
    if what == 2:
        return source.number(2**64 - 1)
    return source.one_of(words) + source.one_of(("", "=", ":", "/")) + source.text()
