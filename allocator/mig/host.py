"""What the daemon is to its MIG instances: its boot, its clock, the grants that live, and how patient it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

PATIENCE: Final = 30.0
"""Seconds that a request may take at the driver, unless the daemon was told otherwise; who creates a container waits
for 40."""


@dataclass(frozen=True, slots=True)
class Host:
    """`now`: seconds of CLOCK_BOOTTIME; `wake_at`: look at the instances at this time; `labels`: of live grants, by
    token; `hurry`: have the GPUs read soon; `max_idle`: seconds after which an idle instance is removed, None: never by
    itself; `patience`: for the driver."""

    boot: str
    now: Callable[[], float]
    wake_at: Callable[[float], None]
    labels: Callable[[], Mapping[str, str]]
    hurry: Callable[[], None]
    max_idle: Callable[[], float | None]
    patience: float = PATIENCE
