"""A thread that takes the pages of released grants away, while the daemon's one thread answers others.

Before an unmount returns, the kernel waits to hear of every processor: 0.4 to 2 ms. What ends while the daemon is busy
is handed over in one piece, so that neither thread wakes the other for each grant. Knows paths, not grants."""

from __future__ import annotations

import functools
import logging
import queue
import threading
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from gpuportion.allocator import pages
from gpuportion.allocator.ended import Ended

log: Final = logging.getLogger("gpuportiond")

Then = Callable[["Exception | None"], None]
"""What is to follow, in the daemon's thread: of a folder that is gone, or of one that can't be removed."""

MOST: Final = 16
"""Folders that wait for a moment in which the daemon has nothing else to do; with this many it doesn't wait for one."""


class Gone(NamedTuple):
    """What is to go, and what follows. `note`: a file that goes when the folder has gone, or empty."""

    folder: str
    note: str
    then: Then


def at_once(gone: Gone) -> None:
    """Without a thread: as `Sweeper.sweep`, here and now."""
    gone.then(pages.remove_all([(gone.folder, gone.note)])[0])


class Sweeper:
    def __init__(self) -> None:
        ended = Ended()
        self.wake, self.take = ended.wake, ended.take
        self._ended = ended
        self._gathered: list[Gone] = []
        self._waiting: queue.SimpleQueue[Sequence[Gone]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="sweeper", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def sweep(self, gone: Gone) -> None:
        """Remove its folder and what is mounted in it, then its note, once it is handed over; what is to follow does so
        in `take`."""
        self._gathered.append(gone)
        if len(self._gathered) >= MOST:
            self.hand_over()

    def hand_over(self) -> None:
        """Let the thread begin with what there is."""
        if self._gathered:
            self._waiting.put(self._gathered)
            self._gathered = []

    def stop(self, patience: float) -> None:
        """Let it remove what it was told to."""
        self.hand_over()
        self._waiting.put(())
        self._thread.join(timeout=patience)

    def _run(self) -> None:
        while batch := self._waiting.get():
            told = zip(batch, _removed(batch), strict=True)
            self._ended.put(*(functools.partial(gone.then, trouble) for gone, trouble in told))


def _removed(batch: Sequence[Gone]) -> Sequence[Exception | None]:
    """What each could not be removed for. Nothing ends the thread: later folders would stay."""
    try:
        return pages.remove_all([(gone.folder, gone.note) for gone in batch])
    except Exception as problem:
        log.exception("a bug, met when the pages of %d grants were removed", len(batch))
        return [problem] * len(batch)
