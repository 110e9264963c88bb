"""allocator/unseen.py: what NVML has more than a ledger, told once it is sure."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuportion.allocator.unseen import MEASURES, SLACK, Key, Unseen
from gpuportion.sizes import MIB

KEY = Key("token", "GPU-0", 7)


def looked(unseen: Unseen, held: int) -> bool:
    """Whether its ledger was to be looked at, which is done then."""
    due = unseen.is_due(KEY, held)
    if due:
        unseen.looked(KEY)
    return due


def told(samples: Sequence[tuple[int, int]]) -> list[float | None]:
    """What is said after each sample of (held, counted), in MiB; the process does as it is told at once."""
    unseen, said = Unseen(), 0
    answers: list[float | None] = []
    for held, counted in samples:
        answer = None
        if looked(unseen, held * MIB):
            answer = unseen.measure(KEY, counted * MIB + said, said)
        said = said if answer is None else answer
        answers.append(None if answer is None else answer / MIB)
    return answers


@pytest.mark.parametrize(
    ("samples", "answers"),
    [
        ([(400, 300)], [None]),
        ([(400, 300)] * 3, [None, 100, None]),
        ([(300, 300)] * 3, [None, None, None]),
        ([(300, 400)] * 3, [None, None, None]),
        ([(301, 300)] * 3, [None, None, None]),
        ([(400, 300)] * 3 + [(350, 300)] * 3, [None, 100, None, None, 50, None]),
        ([(400, 300)] * 3 + [(300, 300)] * 3, [None, 100, None, None, 0, None]),
        ([(500, 300), (400, 300), (400, 300)], [None, 100, None]),
    ],
    ids=["once", "more", "as counted", "less", "within the slack", "shrinks", "ends", "one odd sample"],
)
def test_what_is_said_after_each_sample(
    samples: Sequence[tuple[int, int]], answers: list[int | None]
) -> None:
    """The difference, from the second sample on, when it is another one than what was said."""
    assert told(samples) == answers


def test_a_process_that_holds_the_same_is_left_alone() -> None:
    """Its ledger is read three times after a change, and then no more, until NVML says something else."""
    unseen = Unseen()
    assert [looked(unseen, 5) for _ in range(6)] == [True] * MEASURES + [False] * (6 - MEASURES)
    assert looked(unseen, 6)


def test_a_process_that_could_not_be_looked_at_stays_due() -> None:
    """There are more than are looked at after one sample."""
    unseen = Unseen()
    assert [unseen.is_due(KEY, 5) for _ in range(6)] == [True] * 6
    assert [looked(unseen, 5) for _ in range(4)] == [True] * MEASURES + [False]


def test_a_process_that_is_gone_is_forgotten() -> None:
    """Its number may be another one's."""
    unseen = Unseen()
    assert [looked(unseen, 5) for _ in range(4)] == [True, True, True, False]
    unseen.keep({KEY: 5})
    assert not unseen.is_due(KEY, 5)
    unseen.keep({})
    assert unseen.is_due(KEY, 5)


@given(
    st.lists(st.integers(0, 1 << 40), min_size=1, max_size=9),
    st.integers(0, 1 << 40),
    st.integers(-(1 << 30), 1 << 30),
)
def test_in_the_end_no_more_is_held_than_counted(past: list[int], counted: int, more: int) -> None:
    """Whatever was sampled before: three samples of the same, and what is counted is what is held, or more."""
    unseen, said = Unseen(), 0
    held = max(0, counted + more)
    for one in [*past, held, held, held]:
        if looked(unseen, one):
            answer = unseen.measure(KEY, counted + said, said)
            said = said if answer is None else answer
    assert counted + said + SLACK >= held
    assert said <= max(0, held - counted) + SLACK
