"""Ends processes that may not go on: SIGTERM, and SIGKILL to those that are still there after GRACE seconds.

By pidfd alone, opened for a process with this pid and start: whoever has the pid later is never hit. Decides nothing:
who is to end, and that it still is, is said anew with each call."""

from __future__ import annotations

import os
import signal
from collections.abc import Container
from dataclasses import dataclass
from typing import Final

from gpuportion.allocator import processes
from gpuportion.allocator.processes import Process

GRACE: Final = 10.0


@dataclass(slots=True)
class _Asked:
    pidfd: int
    at: float
    sent: signal.Signals = signal.SIGTERM


class Ending:
    """The processes that were asked to end and have not yet."""

    def __init__(self) -> None:
        self._asked: dict[Process, _Asked] = {}

    def end(self, process: Process, now: float) -> signal.Signals | None:
        """Send what is due; what was sent now, or None: nothing, or it has ended."""
        asked = self._asked.get(process)
        if asked is None:
            pidfd = processes.open_pidfd(process)
            if pidfd is None:
                return None
            asked = self._asked[process] = _Asked(pidfd, now)
        elif asked.sent is signal.SIGKILL or now - asked.at < GRACE:
            return None
        else:
            asked.sent = signal.SIGKILL
        try:
            signal.pidfd_send_signal(asked.pidfd, asked.sent)
        except ProcessLookupError:
            return None
        return asked.sent

    def sent(self, process: Process) -> signal.Signals | None:
        """What it got last; None: nothing."""
        asked = self._asked.get(process)
        return asked.sent if asked else None

    def keep(self, wanted: Container[Process]) -> None:
        """Let the others be: they have ended, or may go on."""
        for process in [one for one in self._asked if one not in wanted]:
            os.close(self._asked.pop(process).pidfd)
