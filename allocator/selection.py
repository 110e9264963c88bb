"""Whether a word of GPU_SELECT means a GPU: by index, UUID or a glob over the model's name."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Protocol


class Named(Protocol):
    """Anything that a user can point at as a GPU."""

    @property
    def index(self) -> int: ...
    @property
    def uuid(self) -> str: ...
    @property
    def model(self) -> str: ...


def matches(gpu: Named, word: str) -> bool:
    """Digits are an index, whatever a model may be called; letters count without their case."""
    if word.isascii() and word.isdigit():
        return gpu.index == int(word)
    uuid = gpu.uuid.lower()
    return word.lower() in (uuid, uuid.removeprefix("gpu-")) or fnmatchcase(gpu.model.lower(), word.lower())
