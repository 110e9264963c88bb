"""Amounts of GPU memory: the one place where they are parsed and printed.

`G` is 10^9 and `Gi` is 2^30, as in Kubernetes. An amount is rounded down to whole MiB, the granularity of
a grant, because a grant must never be larger than what was asked for. Knows nothing of GPUs or limits.
"""

from __future__ import annotations

import re
from typing import Final

MIB: Final = 1 << 20
UNITS: Final = {
    "k": 10**3,
    "m": 10**6,
    "g": 10**9,
    "t": 10**12,
    "ki": 1 << 10,
    "mi": 1 << 20,
    "gi": 1 << 30,
    "ti": 1 << 40,
}
AMOUNT: Final = re.compile(r"(\d{1,18})(?:\.(\d{1,9}))?([kmgt]i?)b?", re.IGNORECASE | re.ASCII)


class BadSizeError(ValueError):
    """An amount that is no amount; the text says why and how to write it."""


def parse(text: str) -> int:
    """Bytes, a positive multiple of 1 MiB, of an amount such as `4G`, `1.5Gi` or `4096MB`."""
    match = AMOUNT.fullmatch(text)
    if match is None:
        raise BadSizeError(_complaint(text))
    whole, decimals, unit = match[1], match[2] or "", match[3].lower()
    size = (
        int(whole + decimals) * UNITS[unit] // int("1" + "0" * len(decimals))
    )  # exact; a Decimal may round up
    if size < MIB:
        raise BadSizeError(f"{text} is less than 1 MiB. Write 4000M, 4G or 4Gi.")
    return size - size % MIB


def _complaint(text: str) -> str:
    if re.fullmatch(r"\d+(\.\d+)?", text, re.ASCII):
        number = text if AMOUNT.fullmatch(f"{text}M") and float(text) >= 2 else "4000"
        return f"{text[:80]} has no unit. Write {number}M, 4G or 4Gi."
    if not text.strip():
        return f"{text} is empty. Write 4000M, 4G or 4Gi."
    shown = text if len(text) <= 80 else text[:77] + "..."
    return f"{shown!r} is not an amount of memory. Write 4000M, 4G or 4Gi."


def mib(size: int) -> str:
    """`3814 MiB`, for people and messages."""
    return f"{size // MIB} MiB"


def gb(size: int) -> str:
    """`4.00 GB`, decimal as in a request."""
    return f"{size / 10**9:.2f} GB"


def both(size: int) -> str:
    """`4.00 GB (3814 MiB)`: decimal as asked for, binary as nvidia-smi shows it."""
    return f"{gb(size)} ({mib(size)})"
