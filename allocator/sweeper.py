"""A thread that takes the pages of released grants away, while the daemon's one thread answers others.

Before an unmount returns, the kernel waits to hear of every processor: 0.4 to 2 ms. Whatever waits is taken away in one
go, so that under load the thread seldom asks Python for its turn. Knows folders, not grants."""

from __future__ import annotations

import functools
import queue
import threading
from collections.abc import Callable
from typing import Final

from gpuportion.allocator import pages
from gpuportion.allocator.ended import Ended

Then = Callable[["OSError | None"], None]
"""What is to follow, in the daemon's thread: of a folder that is gone, or of one that can't be removed."""

MOST: Final = 64
"""Folders of one go: whoever hands over one waits for all of them."""


def at_once(folder: str, then: Then) -> None:
    """Without a thread: as `Sweeper.sweep`, here and now."""
    then(pages.remove_all([folder])[0])


class Sweeper:
    def __init__(self) -> None:
        ended = Ended()
        self.wake, self.take = ended.wake, ended.take
        self._ended = ended
        self._waiting: queue.SimpleQueue[tuple[str, Then] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="sweeper", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def sweep(self, folder: str, then: Then) -> None:
        """Remove `folder` and what is mounted in it; `then` follows in `take`."""
        self._waiting.put((folder, then))

    def stop(self, patience: float) -> None:
        """Let it remove what it was told to."""
        self._waiting.put(None)
        self._thread.join(timeout=patience)

    def _run(self) -> None:
        while (first := self._waiting.get()) is not None:
            batch = [first]
            while not self._waiting.empty() and len(batch) < MOST:
                more = self._waiting.get()
                if more is None:
                    self._waiting.put(None)
                    break
                batch.append(more)
            troubles = pages.remove_all([folder for folder, _ in batch])
            told = zip(batch, troubles, strict=True)
            self._ended.put(*(functools.partial(then, trouble) for (_, then), trouble in told))
