"""What a container's pages hold, as values: limits that are given to it, and use that it reports.

Knows nothing of files, locks or layouts (pages.py), so that pure modules can take and return these.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple


class GpuLimit(NamedTuple):
    """A container's part of one GPU. `uuid`: 16 bytes; `limit`, `context`: bytes."""

    uuid: bytes
    limit: int
    context: int = 0


class Pages(NamedTuple):
    """What `create` made: where the files lie. `note` is empty, or says what could not be had."""

    policy: str
    ledger: str
    own_file_system: bool
    note: str = ""


@dataclass(frozen=True)
class Policy:
    """A policy page. `generation` grows with every change."""

    container: str
    generation: int
    libcuda: str
    libnvml: str
    ledger: str
    gpus: tuple[GpuLimit, ...]


@dataclass(frozen=True)
class Process:
    """A living process that holds memory: its pid as the container numbers it, and bytes.

    `unseen`: of `used`, what the policy told it to charge. `cell`, `generation`: its place in the ledger."""

    pid: int
    used: int
    peak: int = 0
    refusals: int = 0
    unseen: int = 0
    cell: int = 0
    generation: int = 0


@dataclass(frozen=True)
class GpuUse:
    """What a container says of one GPU, in bytes. `peak` is that of the container, `refusals` counts.

    `mended`: how often its processes found the total scribbled upon, and put it right.
    """

    used: int = 0
    peak: int = 0
    refusals: int = 0
    processes: tuple[Process, ...] = ()
    mended: int = 0


@dataclass(frozen=True)
class RefusalNote:
    """A refusal that a process of the container noted, sizes in bytes, `time` in seconds since 1970."""

    number: int
    time: int
    gpu: int
    pid: int
    api: str
    asked: int
    used: int
    limit: int


@dataclass(frozen=True)
class LedgerView:
    """What a ledger says; only the container vouches for it. `damaged`: empty, or why nothing can be said."""

    gpus: tuple[GpuUse, ...] = ()
    notes: tuple[RefusalNote, ...] = field(default=())
    damaged: str = ""
