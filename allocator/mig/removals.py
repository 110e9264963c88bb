"""Instances of ours that go: asked for, idle for too long, nobody's any more, half torn down, in the way of another.

    REMOVING is written down, the GPU's thread removes, and what came of it is written down: gone, or whole and idle
    as before, or half of one, which is tried again and again, ever more seldom

Which of them are in whose way is the planner's to say. Knows nothing of grants."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

from gpuportion.allocator.fault_points import here
from gpuportion.allocator.mig import acts
from gpuportion.allocator.mig.acts import Outcome
from gpuportion.allocator.mig.at_work import Act, AtWork
from gpuportion.allocator.mig.book import Book
from gpuportion.allocator.mig.host import Host
from gpuportion.allocator.mig.node import MigNode
from gpuportion.allocator.mig.records import Change, Phase, Record
from gpuportion.allocator.mig.seen import MigReading
from gpuportion.allocator.nvml.mig import Migs
from gpuportion.allocator.pending import Steps

log: Final = logging.getLogger("gpuportiond")

FIRST_RETRY: Final = 1.0
LAST_RETRY: Final = 60.0
"""Seconds until an instance that could not be removed is tried again."""


class Removals:
    def __init__(self, book: Book, node: MigNode, migs: Migs, at_work: AtWork, host: Host) -> None:
        self._book = book
        self._node = node
        self._migs = migs
        self._at_work = at_work
        self._host = host
        self._retries: dict[int, tuple[float, float]] = {}

    def collect(self, gpu: str | None = None) -> Steps[tuple[list[Record], list[tuple[Record, str]]]]:
        """Remove all that are idle, of one GPU or of all: which are gone, and which are not, with why."""
        gone: list[Record] = []
        kept: list[tuple[Record, str]] = []
        idle = [record for record in self._book if record.is_idle and gpu in (None, record.gpu)]
        for act, records in self._remove_all(idle):
            outcome = yield act.wait
            whys = dict(outcome.kept) if outcome else {}
            late = f"the driver has not done it in {self._host.patience:g} s"
            for record in records:
                if outcome is not None and record.key in outcome.removed:
                    gone.append(record)
                else:
                    kept.append((record, whys.get(record.key, late)))
        return gone, kept

    def remove_due(self) -> None:
        """Those that were to be removed and are there, and those that have been idle for too long or are nobody's any
        more."""
        at_work = self._at_work.keys
        self._remove_all([each for each in self._book if each.key not in at_work and self._is_due(each)])
        self.wake_for_idle()

    def wake_for_idle(self) -> None:
        """Have `remove_due` called when the next one has been idle for too long."""
        most = self._host.max_idle()
        if most is not None:
            times = [record.idle_since + most for record in self._book if record.is_idle]
            if times and min(times) > self._host.now():
                self._host.wake_at(min(times))

    def settle(self, records: Sequence[Record], outcome: Outcome) -> None:
        """What is gone has no record any more; what is whole is idle as before, half of one is tried again."""
        for known in records:
            record = self._book.get(known.key)
            if record is None:
                continue
            if known.key in outcome.removed:
                self._book.apply(record, Change.GONE)
                self._retries.pop(known.key, None)
                log.info(
                    "MIG: removed %s at %d of %s: %s", record.name, record.start, record.gpu, record.uuid
                )
                continue
            if record.uuid and _is_whole(record, outcome.reading):
                self._book.apply(record, Change.KEPT)
            if known.key in dict(outcome.kept):
                self.try_later(known.key)
        here("mig-removal-recorded")

    def try_later(self, key: int) -> None:
        wait = min(LAST_RETRY, self._retries.get(key, (0.0, FIRST_RETRY / 2))[1] * 2)
        self._retries[key] = (self._host.now() + wait, wait)
        self._host.wake_at(self._retries[key][0])

    def _remove_all(self, records: Sequence[Record]) -> list[tuple[Act, list[Record]]]:
        by_gpu: dict[str, list[Record]] = {}
        for record in records:
            by_gpu.setdefault(record.gpu, []).append(record)
        return [(self._remove(found), found) for found in by_gpu.values()]

    def _remove(self, records: Sequence[Record]) -> Act:
        """Of one GPU."""
        for record in records:
            if record.phase is not Phase.REMOVING:
                self._book.apply(record, Change.REMOVED)
        here("mig-removal-intended")
        return self._at_work.hand_over(
            records[0].gpu,
            [record.key for record in records],
            self._host.now() + self._host.patience,
            lambda _: acts.remove(self._migs, records),
            lambda outcome: self.settle(records, outcome),
        )

    def _is_due(self, record: Record) -> bool:
        if self._host.now() < self._retries.get(record.key, (0.0, 0.0))[0]:
            return False
        if record.phase is Phase.REMOVING:
            return self._node.seen(record.gpu) is not None
        most = self._host.max_idle()
        too_long = most is not None and self._host.now() - record.idle_since >= most
        return record.is_idle and (record.once or too_long) and not self._node.users(record)


def _is_whole(record: Record, reading: MigReading | None) -> bool:
    if reading is None or reading.trouble:
        return False
    return any(record.is_same(seen) and seen.only is not None for seen in reading.instances)
