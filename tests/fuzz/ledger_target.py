"""A ledger page, which a container may write as it likes: any bytes give an answer that can be shown and sent."""

from __future__ import annotations

import atexit
import fcntl
import json
import os
import shutil
import struct
import tempfile
from typing import Any, Final

from gpuportion.allocator import pages, rows
from gpuportion.allocator.devices import Share
from gpuportion.allocator.lifecycle import State
from gpuportion.allocator.store import Grant
from tests.fuzz.source import Source

GPUS: Final = 2
SHARES: Final = tuple(Share(f"GPU-{n:032}", n, 4 << 30) for n in range(GPUS))
GRANT: Final = Grant("0" * 32, "boot", "container", "", "c1", 0, SHARES, 1.0, 2.0, state=State.ACTIVE)
WORDS: Final = (0, 1, 2, 255, 256, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1, 4 << 30)
OFD_SETLK: Final = 37
TOLD: Final = (
    (0, 32),
    (128, 1600),
    (4096, 512),
    (12288, 256),
    (12544, 512),
    (20736, 2048),
    (86272, 512),
    (94464, 2048),
)
"""Where something is told (first byte, bytes): header, refusals, first cells; of the first GPU its total, shares and
lanes; of the second one shares and lanes. The rest of the page is of processes that are not there."""

ALIVE: Final = 8  # cells whose holder lives, as far as the file's locks tell


class Ledger:
    """One file that is written again for each input; this process holds the locks of its first cells."""

    def __init__(self) -> None:
        folder = tempfile.mkdtemp(prefix="gpuportion-fuzz-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        limits = [pages.GpuLimit(bytes([n]) * 16, 4 << 30) for n in range(GPUS)]
        made = pages.create(f"{folder}/g", limits, container="c", libcuda="/c", libnvml="/n", ledger="/l")
        if made.own_file_system:
            atexit.register(pages.remove, f"{folder}/g")
        with open(made.ledger, "rb") as file:
            self.empty = file.read()
        self.path = f"{folder}/ledger"
        self.fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        lock = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, pages.CELLS, ALIVE, 0)
        fcntl.fcntl(self.fd, OFD_SETLK, lock)

    def write(self, data: bytes) -> None:
        os.ftruncate(self.fd, 0)
        os.pwrite(self.fd, data, 0)


_ledger: list[Ledger] = []


def run(data: bytes) -> None:
    if not _ledger:
        _ledger.append(Ledger())
    ledger, source = _ledger[0], Source(data)
    asked = source.number(2)  # 0: whatever the file says
    ledger.write(source.rest() if source.number(7) == 0 else _patched(ledger.empty, source))
    view = pages.read_ledger(ledger.path, asked)
    check(view, asked)
    assert 0 <= pages.holders(ledger.path) <= pages.CELLS
    json.dumps(rows.of_grant(GRANT, view, 5.0, with_token=False), allow_nan=False).encode()
    shown = rows.of_refusals(GRANT, view, 1e9)
    json.dumps(shown, allow_nan=False).encode()
    assert all(note["age_s"] >= 0 for note in shown["refusals"])


def _patched(empty: bytes, source: Source) -> bytes:
    """A whole ledger with words changed where they mean something, and perhaps cut short."""
    data = bytearray(empty)
    cut = source.number(15)
    while not source.is_dry:
        start, length = source.one_of(TOLD)
        word = source.one_of(WORDS) if source.number(3) else source.number(2**64 - 1)
        struct.pack_into("<Q", data, start + source.number(length // 8 - 1) * 8, word)
    return bytes(data[: len(data) // cut]) if cut > 8 else bytes(data)


def check(view: pages.LedgerView, asked: int) -> None:
    if view.damaged:
        assert view.gpus == tuple(pages.GpuUse() for _ in range(asked)) and not view.notes
        return
    assert len(view.gpus) == asked or not asked
    for use in view.gpus:
        _check_use(use)
    assert len(view.notes) <= 16
    assert all(len(note.api) <= 24 for note in view.notes)


def _check_use(use: Any) -> None:
    assert use.used == sum(one.used for one in use.processes)
    assert all(0 <= one.unseen <= one.used < 2**64 and one.cell < ALIVE for one in use.processes)
    assert all(0 <= value < 2**64 for value in (use.peak, use.refusals, use.mended))
