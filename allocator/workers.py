"""Threads for what takes a while: one for each lane, in which one thing is done after the other.

    a GPU's UUID    the driver's changes of its MIG instances: seconds
    pages-0 ...     taking pages away: the kernel waits for all processors before an unmount returns, milliseconds

The daemon's one thread hands acts over and hears of their ends by `wake`, an eventfd in its selector; an act touches
nothing of what that thread has. An act that the driver never ends keeps its own lane and no other."""

from __future__ import annotations

import itertools
import logging
import os
import queue
import threading
from collections.abc import Callable
from typing import Final

log: Final = logging.getLogger("gpuportiond")

Act = Callable[[], None]
"""Does it and keeps what came of it; must not raise."""

PAGES: Final = 4
"""Lanes for pages: unmounts that wait at the same time wait together."""


class Workers:
    def __init__(self) -> None:
        self.wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._queues: dict[str, queue.SimpleQueue[tuple[Act, Act] | None]] = {}
        self._threads: list[threading.Thread] = []
        self._ended: queue.SimpleQueue[Act] = queue.SimpleQueue()
        self._pages = itertools.cycle(f"pages-{number}" for number in range(PAGES))

    def submit(self, lane: str, act: Act, then: Act) -> None:
        """Do `act` in the thread of `lane`, after all that was handed over before; then `then` in `take`'s."""
        if lane not in self._queues:
            self._queues[lane] = queue.SimpleQueue()
            thread = threading.Thread(
                target=self._run, args=(self._queues[lane],), name=lane[:15], daemon=True
            )
            self._threads.append(thread)
            thread.start()
        self._queues[lane].put((act, then))

    def submit_pages(self, act: Act, then: Act) -> None:
        """As `submit`, in one of the lanes for pages."""
        self.submit(next(self._pages), act, then)

    def take(self) -> None:
        """Do what is to follow the acts that have ended."""
        try:
            os.eventfd_read(self.wake)
        except BlockingIOError:
            return
        while not self._ended.empty():
            try:
                self._ended.get()()
            except Exception:
                log.exception("a bug, met when an act had ended")

    def stop(self, patience: float) -> None:
        """Let each thread end what it is about; one that the driver keeps is left behind."""
        for jobs in self._queues.values():
            jobs.put(None)
        for thread in self._threads:
            thread.join(timeout=patience)

    def _run(self, jobs: queue.SimpleQueue[tuple[Act, Act] | None]) -> None:
        while (job := jobs.get()) is not None:
            act, then = job
            try:
                act()
            except Exception:
                log.exception("a bug, met in a thread")
            self._ended.put(then)
            os.eventfd_write(self.wake, 1)
