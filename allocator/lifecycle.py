"""The life of a grant: its states, the events that change them, and what a look at the world makes of a
grant.

    RESERVED --CONFIRMED--> ACTIVE --EMPTIED--> RELEASED
        `--EXPIRED, ABANDONED, UNDONE, LOST-------^

RESERVED: memory is promised; the container is being created and has run none of its own code, because the
hook that confirms comes before that, and a confirm after the reservation's end fails the container. So
ending a reservation is always safe. ACTIVE: processes of the container may hold GPU memory; only an empty
container ends it. RELEASED: final; the memory can go to others, the pages are still to be removed.

Messages from hooks, exits of processes and timers are only hints to look: `verdict` decides from what is
there. Pure; knows nothing of stores, processes or clocks."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from enum import Enum
from typing import Final, Protocol


class State(str, Enum):
    RESERVED = "reserved"
    ACTIVE = "active"
    RELEASED = "released"


class Event(str, Enum):
    CONFIRMED = "confirmed"  # the hook, or the caller of exec, showed the process that holds the grant
    PROMISED = "promised"  # what it gets is now known, or is something else: a MIG instance that was made
    EXPIRED = "expired"  # nobody confirmed in time
    ABANDONED = "abandoned"  # whoever was creating the container is gone and did not confirm
    UNDONE = "undone"  # a step of making the grant failed
    RESIZED = "resized"  # root gave it another amount of the same GPUs
    EMPTIED = "emptied"  # nobody is left in the container
    LOST = "lost"  # the machine was booted since


TRANSITIONS: Final = {
    (State.RESERVED, Event.CONFIRMED): State.ACTIVE,
    (State.RESERVED, Event.PROMISED): State.RESERVED,
    (State.RESERVED, Event.EXPIRED): State.RELEASED,
    (State.RESERVED, Event.ABANDONED): State.RELEASED,
    (State.RESERVED, Event.UNDONE): State.RELEASED,
    (State.RESERVED, Event.LOST): State.RELEASED,
    (State.ACTIVE, Event.CONFIRMED): State.ACTIVE,  # a hook may be run again
    (State.ACTIVE, Event.RESIZED): State.ACTIVE,
    (State.ACTIVE, Event.EMPTIED): State.RELEASED,
    (State.ACTIVE, Event.UNDONE): State.RELEASED,  # exec confirms by itself; its answer may still fail
    (State.ACTIVE, Event.LOST): State.RELEASED,
    (State.RELEASED, Event.EXPIRED): State.RELEASED,
    (State.RELEASED, Event.ABANDONED): State.RELEASED,
    (State.RELEASED, Event.UNDONE): State.RELEASED,
    (State.RELEASED, Event.EMPTIED): State.RELEASED,
    (State.RELEASED, Event.LOST): State.RELEASED,
}


class IllegalTransitionError(Exception):
    """An event that a grant in its state cannot have."""


def step(state: State, event: Event) -> State:
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise IllegalTransitionError(f"a {state.value} grant cannot be {event.value}") from None


class Row(Protocol):
    """What the life of a grant depends on."""

    @property
    def token(self) -> str: ...
    @property
    def boot(self) -> str: ...
    @property
    def state(self) -> State: ...
    @property
    def deadline(self) -> float: ...


@dataclass(frozen=True, slots=True)
class World:
    """What is really there, as the shell read it once. `now` in seconds of CLOCK_BOOTTIME."""

    boot: str
    now: float
    living: Container[str] = ()
    """Tokens that somebody lives by. Of a reserved one: whoever makes the container lives, or cannot be seen. Of an
    active one: in its container somebody is, or may be."""


def verdict(row: Row, world: World) -> Event | None:
    """What must happen to one grant so that it agrees with the world; None: nothing."""
    if row.state is State.RELEASED:
        return None
    if row.boot != world.boot:
        return Event.LOST
    if row.state is State.RESERVED and world.now >= row.deadline:
        return Event.EXPIRED
    if row.token in world.living:
        return None
    return Event.EMPTIED if row.state is State.ACTIVE else Event.ABANDONED
