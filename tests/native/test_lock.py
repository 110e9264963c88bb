"""The lock of a process's threads: under the sanitizers, and as a model whose every state is visited."""

from __future__ import annotations

import subprocess

import pytest

from tests.native.lock_model import BrokenError, Explorer, Rules, StuckError
from tests.native.storm_record import LONG
from tests.support import native


@pytest.mark.parametrize("sanitizer", ["address", "thread"])
def test_nobody_is_kept_out_of_a_lock(sanitizer: str) -> None:
    """Neither by a thread that takes it again whenever it has let go, nor by many; and one at a time has it."""
    program = native.built(f"lock_storm_{sanitizer}", "libcap_mem")
    env = {**native.SANITIZER_ENV}
    done = subprocess.run([program, "50"], env=env, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(("threads", "turns"), [(2, 3), (3, 1), *([(3, 2)] if LONG else [])])
def test_nobody_sleeps_for_ever(threads: int, turns: int) -> None:
    """However threads, stores that come late and wakes interleave: all get their turns, one at a time."""
    assert Explorer(threads, turns).run() > 1000


@pytest.mark.parametrize(
    ("fault", "found"),
    [
        (Rules(unlock_wakes=False), StuckError),
        (Rules(fresh_sleeps_are_short=False), StuckError),
        (Rules(sleeper_calms=False), StuckError),
        (Rules(promised_wakes_the_promised=False), StuckError),
        (Rules(barrier_before_the_choice=False), StuckError),
        (Rules(taken_only_when_free=False), BrokenError),
    ],
)
def test_the_model_finds_each_rule_needed(fault: Rules, found: type[Exception]) -> None:
    """Without it somebody sleeps for ever, or two have the lock."""
    with pytest.raises(found):
        Explorer(2, 2, fault).run()
        Explorer(3, 1, fault).run()
