"""The answer to `ps`, put together in turns: thousands of ledgers take a while to read, and grants do not wait for it.

It is of one moment all the same, that of its end: whose container has ended meanwhile isn't in it, who was given
another amount has the new one; who came meanwhile comes in the next answer. What is in use was read on the way. An
answer has bounds; what doesn't fit is counted. Knows nothing of sockets, nor how a ledger is read."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any, Final

from gpuportion import wire
from gpuportion.allocator.grant import Grant
from gpuportion.allocator.pages import LedgerView
from gpuportion.allocator.pending import Steps
from gpuportion.allocator.turns import Turn

Row = dict[str, Any]

ROOM: Final = wire.MAX_ANSWER - 128
"""Bytes for what is listed: without the words around it."""

_text: Final = json.JSONEncoder(separators=(",", ":")).encode


def put_together(
    seen: Callable[[], Iterable[Grant]],
    use: Callable[[Grant], LedgerView],
    row: Callable[[Grant, LedgerView], Row],
    findings: Iterable[Row],
    turn: Turn,
    room: int = ROOM,
) -> Steps[bytes]:
    """The head of the answer. `seen`: the grants that the asker is told of, as they are when it is called."""
    read: list[tuple[Grant, LedgerView, str]] = []
    for grant in seen():
        yield from turn.rest()
        view = use(grant)
        read.append((grant, view, _text(row(grant, view))))
    found = []
    for finding in findings:
        yield from turn.rest()
        found.append(_text(finding))
    now = {grant.token: grant for grant in seen()}
    told = [
        text if now[grant.token] is grant else _text(row(now[grant.token], view))
        for grant, view, text in read
        if grant.token in now
    ]
    return _joined(told, found, room)


def _joined(grants: list[str], findings: list[str], room: int) -> bytes:
    some_findings = _fitting(findings, room)
    some_grants = _fitting(grants, room - sum(map(len, some_findings)) - len(some_findings))
    left_out = len(grants) + len(findings) - len(some_grants) - len(some_findings)
    more = f',"left_out":{left_out}' if left_out else ""
    return f'{{"grants":[{",".join(some_grants)}],"findings":[{",".join(some_findings)}]{more}}}'.encode()


def _fitting(texts: list[str], room: int) -> list[str]:
    """The first ones, as many as there is room for, with a comma each."""
    for count, text in enumerate(texts):
        room -= len(text) + 1
        if room < 0:
            return texts[:count]
    return texts
