"""A thread for each GPU, in which what takes seconds is done, one thing after the other.

The daemon's one thread hands acts over and hears of their ends by `wake`, an eventfd in its selector; nothing but the
driver is touched in between. An act that the driver never ends keeps its GPU's thread and nobody else's."""

from __future__ import annotations

import logging
import os
import queue
import threading
from collections.abc import Callable
from typing import Final

log: Final = logging.getLogger("gpuportiond")

Act = Callable[[], None]
"""Does it and keeps what came of it; must not raise."""


class Workers:
    def __init__(self) -> None:
        self.wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._queues: dict[str, queue.SimpleQueue[tuple[Act, Act] | None]] = {}
        self._threads: list[threading.Thread] = []
        self._ended: queue.SimpleQueue[Act] = queue.SimpleQueue()

    def submit(self, gpu: str, act: Act, then: Act) -> None:
        """Do `act` in the thread of `gpu`, after all that was handed over before; then `then` in `take`'s."""
        if gpu not in self._queues:
            self._queues[gpu] = queue.SimpleQueue()
            thread = threading.Thread(target=self._run, args=(self._queues[gpu],), name="mig", daemon=True)
            self._threads.append(thread)
            thread.start()
        self._queues[gpu].put((act, then))

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
                log.exception("a bug, met when a change of MIG instances had ended")

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
                log.exception("a bug, met in a thread of MIG")
            self._ended.put(then)
            os.eventfd_write(self.wake, 1)
