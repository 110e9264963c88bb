"""Processes that are known while their pidfd says nothing."""

from __future__ import annotations

import os

from tests.support.daemon import Sleeper

from gpuportion.allocator.lives import Lives
from gpuportion.allocator.processes import start_of


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_a_start_is_known_until_the_process_ends() -> None:
    """Then /proc says it: a zombie still counts, and who was reaped is gone."""
    lives = Lives()
    with Sleeper() as process:
        start = start_of(process.pid)
        assert lives.start_of(process.pid) == lives.start_of(process.pid) == start
        process.process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        lives.look()
        assert lives.start_of(process.pid) == start
        process.process.wait()
        lives.look()
        assert lives.start_of(process.pid) is None
    lives.close()


def test_who_ended_keeps_no_descriptor() -> None:
    """Nor who is not wanted any more."""
    before = descriptors()
    lives = Lives()
    with Sleeper() as one, Sleeper() as two:
        held = descriptors()
        assert all(lives.start_of(each.pid) for each in (one, two))
        assert descriptors() == held + 2
        lives.keep({two.pid})
        assert descriptors() == held + 1
        two.end()
        lives.look()
        lives.look()
        assert descriptors() == held
        assert lives.start_of(two.pid) is None
    lives.close()
    assert descriptors() == before


def test_there_is_an_end_to_them() -> None:
    """Beyond it nobody is kept, and the answers are the same."""
    lives = Lives(most=1)
    with Sleeper() as one, Sleeper() as two:
        held = descriptors()
        assert [lives.start_of(each.pid) for each in (one, two)] == [
            start_of(each.pid) for each in (one, two)
        ]
        assert descriptors() == held + 1
    lives.close()
