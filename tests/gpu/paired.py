"""Paired timings: the ratio of with to without, and how sure that is.

The ratio of medians, and the interval that holds 95 of 100 ratios of pairs drawn again (bootstrap). Knows nothing of
what was timed.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

DRAWS: Final = 1000


@dataclass(frozen=True)
class Ratio:
    """`low` to `high`: the interval. Medians in the unit of what was timed."""

    without: float
    with_: float
    middle: float
    low: float
    high: float

    def verdict(self, most: float) -> bool | None:
        """Whether it is at most so much; None: the interval lies on both sides."""
        if self.high <= most:
            return True
        return False if self.low > most else None

    def __str__(self) -> str:
        return f"{self.middle - 1:+.2%} ({self.low - 1:+.2%} to {self.high - 1:+.2%})"


def compare(without: Sequence[float], with_: Sequence[float], seed: int = 1) -> Ratio:
    """Of pairs taken at the same time. ValueError: there are none."""
    pairs = list(zip(without, with_, strict=True))
    if not pairs:
        raise ValueError("nothing was timed")
    draw = random.Random(seed)
    ratios = sorted(_ratio(draw.choices(pairs, k=len(pairs))) for _ in range(DRAWS))
    return Ratio(
        statistics.median(without),
        statistics.median(with_),
        _ratio(pairs),
        ratios[DRAWS * 25 // 1000],
        ratios[DRAWS * 975 // 1000 - 1],
    )


def _ratio(pairs: Sequence[tuple[float, float]]) -> float:
    return statistics.median(pair[1] for pair in pairs) / statistics.median(pair[0] for pair in pairs)
