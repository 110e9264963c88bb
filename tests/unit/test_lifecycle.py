"""The life of a grant as a table, and what reconciling makes of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import pytest

from gpuportion.allocator.lifecycle import (
    TRANSITIONS,
    Event,
    IllegalTransitionError,
    State,
    World,
    step,
    verdict,
)


@dataclass(frozen=True)
class Row:
    token: str = "t"
    boot: str = "boot-1"
    state: State = State.RESERVED
    deadline: float = 60.0


@pytest.mark.parametrize(("state", "event"), list(product(State, Event)))
def test_every_pair_is_in_the_table_or_refused(state: State, event: Event) -> None:
    """No event is silently ignored."""
    if (state, event) in TRANSITIONS:
        assert step(state, event) is TRANSITIONS[state, event]
    else:
        with pytest.raises(IllegalTransitionError, match=f"a {state.value} grant cannot be {event.value}"):
            step(state, event)


def test_released_is_final_and_hears_every_end_again() -> None:
    """Hooks repeat themselves; a confirm after the end is refused, so that the container fails; so is another size."""
    for event in Event:
        if event in (Event.CONFIRMED, Event.RESIZED, Event.PROMISED):
            assert (State.RELEASED, event) not in TRANSITIONS
        else:
            assert TRANSITIONS[State.RELEASED, event] is State.RELEASED


@pytest.mark.parametrize(
    ("row", "world", "event"),
    [
        pytest.param(Row(), World("boot-1", 10, living="t"), None, id="being-created"),
        pytest.param(Row(), World("boot-1", 10), Event.ABANDONED, id="creator-gone"),
        pytest.param(Row(), World("boot-1", 60, living="t"), Event.EXPIRED, id="too-late"),
        pytest.param(Row(), World("boot-1", 60), Event.EXPIRED, id="too-late-and-creator-gone"),
        pytest.param(Row(), World("boot-2", 10, living="t"), Event.LOST, id="booted"),
        pytest.param(Row(state=State.ACTIVE), World("boot-1", 99, living="t"), None, id="lives"),
        pytest.param(Row(state=State.ACTIVE), World("boot-1", 1), Event.EMPTIED, id="empty"),
        pytest.param(Row(state=State.ACTIVE), World("boot-2", 1, living="t"), Event.LOST, id="lost"),
        pytest.param(Row(state=State.RELEASED), World("boot-2", 999), None, id="released"),
    ],
)
def test_a_look_decides_by_what_is_there(row: Row, world: World, event: Event | None) -> None:
    """Never by who told us to look."""
    assert verdict(row, world) is event
    if event is not None:
        assert step(row.state, event) is State.RELEASED


def test_the_documentation_has_the_same_table() -> None:
    """docs/daemon.md, transition by transition; what is final is told in words."""
    text = (Path(__file__).parents[2] / "docs" / "daemon.md").read_text()
    told = re.findall(r"^\| (\w+) \| (\w+) \| (\w+) \|", text, re.MULTILINE)[1:]
    real = [
        (state.value, event.value, after.value)
        for (state, event), after in TRANSITIONS.items()
        if state is not State.RELEASED
    ]
    assert sorted(told) == sorted(real)
