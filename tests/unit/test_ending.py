"""Processes that are ended: SIGTERM, SIGKILL after a while, and never somebody else."""

from __future__ import annotations

import os
import signal
import sys

from tests.support.daemon import Sleeper

from gpuportion.allocator.ending import GRACE, Ending
from gpuportion.allocator.processes import Process, start_of

DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); signal.pause()"


def identity(pid: int) -> Process:
    start = start_of(pid)
    assert start is not None
    return Process(pid, start)


def test_a_process_that_heeds_sigterm_gets_nothing_more() -> None:
    """One signal, however often it is asked for."""
    with Sleeper() as sleeper:
        ending, process = Ending(), identity(sleeper.pid)
        assert ending.end(process, 0) is signal.SIGTERM is ending.sent(process)
        assert sleeper.process.wait() == -signal.SIGTERM
        assert ending.end(process, 1) is None
        assert ending.end(process, GRACE + 1) is None
        ending.keep(())
        assert ending.sent(process) is None


def test_a_process_that_does_not_is_killed_after_a_while() -> None:
    """SIGKILL, once."""
    with Sleeper([sys.executable, "-c", DEAF]) as deaf:
        ending, process = Ending(), identity(deaf.pid)
        while not _ignored(deaf.pid) >> (signal.SIGTERM - 1) & 1:
            assert deaf.process.poll() is None
        assert ending.end(process, 0) is signal.SIGTERM
        assert ending.end(process, GRACE - 0.1) is None
        assert ending.end(process, GRACE) is signal.SIGKILL is ending.sent(process)
        assert deaf.process.wait() == -signal.SIGKILL
        assert ending.end(process, GRACE + 1) is None
        ending.keep(())


def _ignored(pid: int) -> int:
    """The signals that a process ignores, as bits; some it may have been born with."""
    with open(f"/proc/{pid}/status") as file:
        line = next(line for line in file if line.startswith("SigIgn:"))
    return int(line.split()[1], 16)


def test_a_later_process_with_the_pid_is_never_hit() -> None:
    """The start tells; nothing is sent and nothing kept."""
    with Sleeper() as sleeper:
        ending, real = Ending(), identity(sleeper.pid)
        assert ending.end(Process(real.pid, real.start - 1), 0) is None
        assert ending.end(Process(real.pid, real.start - 1), GRACE) is None
        assert sleeper.process.poll() is None


def test_no_descriptor_is_left_behind() -> None:
    """Whoever may go on is let be."""
    with Sleeper() as sleeper:
        before = len(os.listdir("/proc/self/fd"))
        ending, process = Ending(), identity(sleeper.pid)
        ending.end(process, 0)
        ending.keep({process})
        assert len(os.listdir("/proc/self/fd")) == before + 1
        ending.keep(set())
        assert len(os.listdir("/proc/self/fd")) == before
