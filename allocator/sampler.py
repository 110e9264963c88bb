"""Reads NVML in a thread of its own, because a driver in trouble can keep a call for seconds, or for ever. Knows
nothing of what the samples mean."""

from __future__ import annotations

import os
import threading
import time
from typing import Final

from gpuportion.allocator.inventory import Nvml, Sample

PERIOD: Final = 1.0
"""Seconds between two samples."""

CALM: Final = 1.5
"""The same where the last STILL of them said the same. A stranger is told of in two seconds, an over-user, which has to
be seen twice, as well: CALM and SOON."""

STILL: Final = 5

SOON: Final = 0.25
"""Seconds to the next one where it is waited for."""

PATIENCE: Final = 10.0
"""Seconds that a reading of NVML may take before nobody is served by what was read before."""


class Sampler:
    """Reads NVML every PERIOD, or every CALM; `wake` is an eventfd that becomes readable when `latest` is new, or a
    call has been waited for so long that it is time to say so."""

    def __init__(self) -> None:
        self.wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.latest = Sample(trouble="NVML has not answered yet")
        self._nvml = Nvml()
        self._stop = threading.Event()
        self._hurry = threading.Event()
        self._began: float | None = None
        self._thread = threading.Thread(target=self._run, name="nvml", daemon=True)
        self._watch = threading.Thread(target=self._tell_when_stuck, name="nvml-watch", daemon=True)

    def start(self) -> None:
        self._thread.start()
        self._watch.start()

    @property
    def waiting_since(self) -> float | None:
        """When the reading began that has not ended for PATIENCE, seconds of CLOCK_BOOTTIME; None: there is none."""
        began = self._began
        return began if began is not None and _now() - began >= PATIENCE else None

    def stop(self) -> None:
        """Ask it to end; a call that hangs in the driver is not waited for long."""
        self._stop.set()
        self._hurry.set()
        self._thread.join(timeout=2)

    def hurry(self) -> None:
        """One more sample would decide something: take the next one SOON."""
        self._hurry.set()

    def _run(self) -> None:
        still = 0
        while not self._stop.is_set():
            self._began = _now()
            self.latest = self._nvml.sample()
            self._began = None
            still = 0 if self.latest.moved else still + 1
            os.eventfd_write(self.wake, 1)
            if self._hurry.wait(CALM if still >= STILL else PERIOD):
                self._hurry.clear()
                self._stop.wait(SOON)
        self._nvml.close()

    def _tell_when_stuck(self) -> None:
        while not self._stop.wait(PATIENCE / 2):
            if self.waiting_since is not None:
                os.eventfd_write(self.wake, 1)


def _now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)
