"""A thread for each GPU, in which what takes seconds is done, one thing after the other.

The daemon's one thread hands acts over and hears of their ends by `wake`, an eventfd in its selector; nothing but the
driver is touched in between. An act that the driver never ends keeps its GPU's thread and nobody else's."""

from __future__ import annotations

import logging
import queue
import threading
from typing import Final

from gpuportion.allocator.ended import Act, Ended

log: Final = logging.getLogger("gpuportiond")


class Workers:
    def __init__(self) -> None:
        ended = Ended()
        self.wake, self.take = ended.wake, ended.take
        self._ended = ended
        self._queues: dict[str, queue.SimpleQueue[tuple[Act, Act] | None]] = {}
        self._threads: list[threading.Thread] = []

    def submit(self, gpu: str, act: Act, then: Act) -> None:
        """Do `act`, which must not raise, in the thread of `gpu`, after all that was handed over before; then `then` in
        `take`'s."""
        if gpu not in self._queues:
            self._queues[gpu] = queue.SimpleQueue()
            thread = threading.Thread(target=self._run, args=(self._queues[gpu],), name="mig", daemon=True)
            self._threads.append(thread)
            thread.start()
        self._queues[gpu].put((act, then))

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
