"""What other threads have done, for the daemon's one thread to go on with.

They put calls; `wake`, an eventfd, is in the selector of the thread that takes and does them. Knows nothing of what is
called."""

from __future__ import annotations

import logging
import os
import queue
from collections.abc import Callable
from typing import Final

log: Final = logging.getLogger("gpuportiond")

Act = Callable[[], None]


class Ended:
    def __init__(self) -> None:
        self.wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._calls: queue.SimpleQueue[Act] = queue.SimpleQueue()

    def put(self, *calls: Act) -> None:
        """From any thread."""
        for call in calls:
            self._calls.put(call)
        os.eventfd_write(self.wake, 1)

    def take(self) -> None:
        """Do what is to follow what has ended. What one of them raises is a bug, and keeps no other."""
        try:
            os.eventfd_read(self.wake)
        except BlockingIOError:
            return
        while not self._calls.empty():
            try:
                self._calls.get()()
            except Exception:
                log.exception("a bug, met when what another thread did had ended")
