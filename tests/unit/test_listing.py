"""The answer to `ps`: of one moment, within bounds, and without anybody waiting for the whole of it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from typing import Any

import pytest

from gpuportion import wire
from gpuportion.allocator import listing
from gpuportion.allocator.devices import Share
from gpuportion.allocator.grant import Grant
from gpuportion.allocator.page_values import GpuUse, LedgerView
from gpuportion.allocator.pending import drive
from gpuportion.allocator.turns import Turns

ROWS = 20


@pytest.fixture
def turns() -> Iterator[Turns]:
    """Turns that are over as soon as they begin: one for each ledger."""
    made = Turns(0)
    yield made
    made.close()


def grant(id: str, limit: int = 1) -> Grant:
    return Grant("t" + id, "boot", "container", "", id, 0, (Share("GPU-0", 0, limit),), 0, 0)


def row(grant: Grant, view: LedgerView) -> dict[str, Any]:
    return {"id": grant.id, "limit": grant.shares[0].limit, "used": view.gpus[0].used}


class Asked:
    """A question among `live` grants, and of which of them the ledger was read."""

    def __init__(
        self,
        turns: Turns,
        live: list[Grant],
        findings: list[dict[str, Any]] | None = None,
        room: int = listing.ROOM,
    ) -> None:
        self.read: list[str] = []
        self._turns = turns
        found = iter(findings or [])
        steps = listing.put_together(lambda: list(live), self._use, row, found, turns.begin(), room)
        self.text = b""
        self._result = drive(steps)
        self._result.then(lambda text: setattr(self, "text", text))

    def _use(self, grant: Grant) -> LedgerView:
        self.read.append(grant.id)
        return LedgerView((GpuUse(used=len(self.read)),))

    def turn(self, count: int) -> None:
        for _ in range(count):
            self._turns.go_on()

    def answer(self) -> Any:
        while not self._result.is_over:
            self._turns.go_on()
        return json.loads(self.text)


def test_a_ledger_is_read_a_turn(turns: Turns) -> None:
    """Whatever else there is to do is done in between."""
    asked = Asked(turns, [grant("a"), grant("b")])
    assert asked.read == []
    asked.turn(1)
    assert asked.read == ["a"]
    assert asked.answer() == {
        "grants": [{"id": "a", "limit": 1, "used": 1}, {"id": "b", "limit": 1, "used": 2}],
        "findings": [],
    }


def test_who_has_ended_meanwhile_is_not_told_of(turns: Turns) -> None:
    """Neither the one whose ledger was still there, nor the one whose ledger is gone."""
    live = [grant("a"), grant("b"), grant("c")]
    asked = Asked(turns, live)
    asked.turn(1)
    del live[0], live[-1]
    assert [one["id"] for one in asked.answer()["grants"]] == ["b"]


def test_another_amount_is_told_and_a_newcomer_is_not(turns: Turns) -> None:
    """All rows are of the moment of the answer: together they never come to more than a GPU has."""
    live = [grant("a", 10), grant("b", 20)]
    asked = Asked(turns, live)
    asked.turn(1)
    live[:] = [grant("a", 5), dataclasses.replace(live[1], shares=(Share("GPU-0", 0, 25),)), grant("c", 1)]
    told = asked.answer()["grants"]
    assert [(one["id"], one["limit"], one["used"]) for one in told] == [("a", 5, 1), ("b", 25, 2)]


def test_each_finding_has_a_turn_too(turns: Turns) -> None:
    """/proc is asked about it."""
    asked = Asked(turns, [grant("a")], [{"held": 1}, {"held": 2}])
    asked.turn(2)
    assert asked.text == b""
    assert asked.answer()["findings"] == [{"held": 1}, {"held": 2}]


@pytest.mark.parametrize("fits", [0, 1, 7, ROWS - 1, ROWS])
def test_what_does_not_fit_is_counted(turns: Turns, fits: int) -> None:
    """The first ones stay, to the byte; findings before grants."""
    live = [grant(chr(ord("a") + number)) for number in range(ROWS)]
    finding = {"held": 1}
    size = len('{"id":"a","limit":1,"used":1},')
    room = len('{"held":1},') + 9 * size + max(0, ROWS - 9) * (size + 1)
    room -= sum(size + (number >= 9) for number in range(fits, ROWS))
    told = Asked(turns, live, [finding], room).answer()
    assert (len(told["grants"]), len(told["findings"])) == (fits, 1)
    assert told.get("left_out", 0) == ROWS - fits
    if fits:
        less = Asked(turns, live, [finding], room - 1).answer()
        assert (len(less["grants"]), less["left_out"]) == (fits - 1, ROWS - fits + 1)


def test_findings_too_are_bounded(turns: Turns) -> None:
    """Containers make them."""
    told = Asked(turns, [grant("a")], [{"held": 1}] * 3, len('{"held":1},') * 2).answer()
    assert told == {"grants": [], "findings": [{"held": 1}] * 2, "left_out": 2}


def test_the_largest_answer_is_a_frame(turns: Turns) -> None:
    """With the words around what is listed."""
    long = grant("x" * 100_000)
    asked = Asked(turns, [dataclasses.replace(long, token=f"t{number}") for number in range(200)])
    told = asked.answer()
    assert told["left_out"] > 0
    assert listing.ROOM - 200_000 < len(asked.text) <= wire.MAX_ANSWER
    assert wire.sizes(wire.encode(wire.Message({}, text=asked.text))[:16])[1] == len(asked.text)
