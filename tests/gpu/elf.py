"""The exported symbols of a shared library of 64 bits, read from the file: machines with a GPU may have no nm."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

DYNSYM: Final = 11
FUNCTION: Final = (2, 10)
"""Functions, and those that are chosen at load (ifunc)."""
DATA: Final = 1


def exports(path: str) -> dict[str, str]:
    """Names with "function", "data" or "other". ValueError: the file is no such library, or has no section table."""
    with open(path, "rb") as file:
        image = file.read()
    if image[:6] != b"\x7fELF\x02\x01":
        raise ValueError(f"{path} is no little-endian ELF file of 64 bits")
    return dict(_symbols(image))


def _symbols(image: bytes) -> Iterator[tuple[str, str]]:
    (at,) = struct.unpack_from("<Q", image, 0x28)
    size, count = struct.unpack_from("<HH", image, 0x3A)
    sections = [struct.unpack_from("<IIQQQQIIQQ", image, at + n * size) for n in range(count)]
    tables = [section for section in sections if section[1] == DYNSYM]
    if not tables:
        raise ValueError("it has no table of dynamic symbols among its sections")
    _, _, _, _, offset, length, strings, *_ = tables[0]
    names = sections[strings][4]
    for n in range(length // 24):
        name, info, _, section, _, _ = struct.unpack_from("<IBBHQQ", image, offset + n * 24)
        if name and section and info >> 4 in (1, 2, 10):  # global, weak, unique; defined here
            end = image.index(b"\0", names + name)
            kind = info & 15
            text = image[names + name : end].decode()
            yield text, "function" if kind in FUNCTION else "data" if kind == DATA else "other"
