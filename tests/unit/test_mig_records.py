"""What is made of the book and of what the driver shows, after a crash at any step."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuportion.allocator.mig.records import PHASES, Change, Phase, Record, Verdict, reconcile, verdict
from gpuportion.allocator.mig.seen import Compute, Seen

BOOT, GPU, PROFILE = "boot-1", "GPU-1", 19
MAKING = Record(1, BOOT, GPU, PROFILE, "1g.5gb", 6, 1, 4864 << 20, 1, token="t")
READY = dataclasses.replace(MAKING, phase=Phase.READY, gi=13, ci=0, uuid="MIG-a")
REMOVING = dataclasses.replace(READY, phase=Phase.REMOVING, token="")
UNTOLD = dataclasses.replace(REMOVING, ci=-1, uuid="")
WHOLE = Seen(13, PROFILE, 6, 1, (Compute(0, "MIG-a"),))
HALF = dataclasses.replace(WHOLE, computes=())
OTHER = dataclasses.replace(WHOLE, computes=(Compute(0, "MIG-b"),))
MOVED = dataclasses.replace(WHOLE, start=5)
NUMBERED = dataclasses.replace(WHOLE, id=14)


@pytest.mark.parametrize(
    ("record", "seen", "live", "change"),
    [
        pytest.param(MAKING, [], {"t"}, Change.FAILED, id="nothing-was-made"),
        pytest.param(MAKING, [HALF], {"t"}, Change.REMOVED, id="half-was-made"),
        pytest.param(MAKING, [WHOLE], {"t"}, Change.MADE, id="it-was-made"),
        pytest.param(MAKING, [MOVED], {"t"}, Change.FAILED, id="another-place-is-no-business-of-ours"),
        pytest.param(READY, [WHOLE], {"t"}, None, id="in-use"),
        pytest.param(READY, [WHOLE], set(), Change.FREED, id="its-grant-is-over"),
        pytest.param(READY, [OTHER], {"t"}, Change.GONE, id="made-again-by-somebody"),
        pytest.param(READY, [HALF], {"t"}, Change.GONE, id="torn-by-somebody"),
        pytest.param(READY, [], {"t"}, Change.GONE, id="removed-by-somebody"),
        pytest.param(READY, [MOVED], {"t"}, Change.GONE, id="its-id-at-another-place"),
        pytest.param(READY, [NUMBERED], {"t"}, Change.GONE, id="its-place-with-another-id"),
        pytest.param(READY, None, {"t"}, None, id="the-driver-cannot-tell"),
        pytest.param(READY, None, set(), Change.FREED, id="the-driver-cannot-tell-but-its-grant-is-over"),
        pytest.param(REMOVING, [WHOLE], set(), Change.REMOVED, id="nothing-was-removed"),
        pytest.param(REMOVING, [HALF], set(), Change.REMOVED, id="half-was-removed"),
        pytest.param(REMOVING, [], set(), Change.GONE, id="it-was-removed"),
        pytest.param(REMOVING, [OTHER], set(), Change.GONE, id="removed-and-made-again-by-somebody"),
        pytest.param(REMOVING, None, set(), None, id="removal-waits-for-the-driver"),
        pytest.param(UNTOLD, [WHOLE], set(), Change.REMOVED, id="made-and-never-told-of"),
        pytest.param(UNTOLD, [NUMBERED], set(), Change.GONE, id="undone-after-all"),
    ],
)
def test_a_record_is_what_the_driver_shows(
    record: Record, seen: list[Seen] | None, live: set[str], change: Change | None
) -> None:
    """Every half-done step is one of these."""
    found = verdict(record, BOOT, seen, live)
    assert (found.change if found else None) is change
    assert found is None or found.record is record


def test_an_instance_is_of_one_record_alone() -> None:
    """One that is being made does not take what another record of that GPU is known to be; ids are of one GPU."""
    making, elsewhere = dataclasses.replace(MAKING, key=2), dataclasses.replace(READY, key=3, gpu="GPU-2")
    shown = {GPU: [WHOLE], "GPU-2": [WHOLE]}
    assert reconcile([READY, elsewhere], BOOT, shown, {"t"}) == []
    assert reconcile([making, READY], BOOT, shown, {"t"}) == [Verdict(making, Change.FAILED)]
    assert reconcile([making, elsewhere], BOOT, shown, {"t"}) == [Verdict(making, Change.MADE, WHOLE)]
    assert reconcile([READY, elsewhere], BOOT, {GPU: [WHOLE]}, {"u"}) == [
        Verdict(READY, Change.FREED),
        Verdict(elsewhere, Change.FREED),
    ]


@pytest.mark.parametrize("record", [MAKING, READY, REMOVING])
def test_nothing_is_assumed_after_a_reboot(record: Record) -> None:
    """Even what looks the same is not ours."""
    found = verdict(record, "boot-2", [WHOLE], {"t"})
    assert found is not None and PHASES[record.phase, found.change] is None


computes = st.builds(Compute, st.integers(0, 1), st.sampled_from(["MIG-a", "MIG-b", "MIG-c"]))
instances = st.builds(
    Seen,
    id=st.integers(7, 9),
    profile=st.sampled_from([19, 14]),
    start=st.integers(0, 2),
    size=st.just(1),
    computes=st.lists(computes, max_size=2).map(tuple),
)
nodes = st.lists(instances, max_size=4, unique_by=lambda one: one.id)


@st.composite
def books(draw: st.DrawFn) -> list[Record]:
    count = draw(st.integers(0, 4))
    found = []
    for key in range(count):
        phase = draw(st.sampled_from(Phase))
        known = phase is not Phase.MAKING
        record = dataclasses.replace(
            MAKING,
            key=key,
            boot=draw(st.sampled_from([BOOT, BOOT, "boot-0"])),
            profile=draw(st.sampled_from([19, 14])),
            start=draw(st.integers(0, 2)),
            phase=phase,
            gi=draw(st.integers(7, 9)) if known else -1,
            ci=draw(st.integers(0, 1)) if known else -1,
            uuid=draw(st.sampled_from(["MIG-a", "MIG-b", "MIG-c"])) if known else "",
            token=draw(st.sampled_from(["", "t", "u"])),
        )
        found.append(record)
    return found


@given(books(), nodes, st.sets(st.sampled_from(["t", "u"])))
def test_book_and_driver_agree_after_what_reconcile_says(
    records: list[Record], seen: list[Seen], live: set[str]
) -> None:
    """Each change is one that its phase can have; done, and looked at again, nothing is left but removals; and nothing
    is ever removed but what the book knows by its ids, or that was being made at its place."""
    book = {record.key: record for record in records}
    for _ in range(3):
        for one in reconcile(list(book.values()), BOOT, {GPU: seen}, live):
            phase = PHASES[one.record.phase, one.change]
            if one.change is Change.REMOVED:
                assert one.seen is not None and one.record.is_same(one.seen)
            if phase is None:
                del book[one.record.key]
                continue
            ids: dict[str, Any] = {}
            if one.seen is not None:
                ids = {"gi": one.seen.id}
                if one.seen.only:
                    ids |= {"ci": one.seen.only.id, "uuid": one.seen.only.uuid}
            ids |= {"token": ""} if one.change is Change.FREED else {}
            book[one.record.key] = dataclasses.replace(one.record, phase=phase, **ids)
    left = reconcile(list(book.values()), BOOT, {GPU: seen}, live)
    assert all(one.change is Change.REMOVED and one.record.phase is Phase.REMOVING for one in left)
    ready = [record for record in book.values() if record.phase is Phase.READY]
    assert all(any(record.is_same(one) for one in seen) and record.token in {"", *live} for record in ready)
