"""What a daemon that starts has to do so that its rows and the host agree: derived from both, never remembered.

A crash leaves a row without pages, pages without a row, a page that was being changed, or a row whose container
ended when nobody looked. Each is one field of the Plan. Doing a plan twice, or half of it and then a new one, comes
to the same. Pure; knows nothing of stores, processes or clocks."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from gpuportion.allocator.lifecycle import Event, Row, State, World, verdict


@dataclass(frozen=True, slots=True)
class Plan:
    """Tokens of grants, by what is to be done about them. Every row is in exactly one of the first three."""

    release: tuple[tuple[str, Event], ...] = ()
    """Rows that ended meanwhile, and by what."""
    finish: tuple[str, ...] = ()
    """Released rows of which something may be left on the host."""
    keep: tuple[str, ...] = ()
    """Rows that hold."""
    mend: tuple[str, ...] = ()
    """Of those kept, the ones that may have been in the midst of a change: their page is to say what the row says."""
    orphans: tuple[str, ...] = ()
    """Pages that belong to no row."""


def reconcile(rows: Collection[Row], world: World, folders: Collection[str] = ()) -> Plan:
    """`folders`: the tokens of which there are pages."""
    events = {row.token: verdict(row, world) for row in rows}
    kept = [row for row in rows if row.state is not State.RELEASED and events[row.token] is None]
    return Plan(
        release=tuple((token, event) for token, event in events.items() if event is not None),
        finish=tuple(row.token for row in rows if row.state is State.RELEASED),
        keep=tuple(row.token for row in kept),
        mend=tuple(row.token for row in kept if row.state is State.ACTIVE),
        orphans=tuple(token for token in folders if token not in events),
    )
