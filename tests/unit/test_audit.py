"""Who has GPU memory without a grant or beyond it, from one sample to the next."""

from __future__ import annotations

import pytest

from gpuportion.allocator.attribution import Held
from gpuportion.allocator.audit import LASTING, OVER, STRANGER, Audit, Finding, Key, margin
from gpuportion.allocator.owners import Claim
from gpuportion.sizes import MIB

GPU, OTHER = "GPU-0", "GPU-1"
GIB = 1 << 30
MINE = Claim("mine", limits={GPU: 4 * GIB})


def stranger(size: int = GIB, pid: int = 7) -> Held:
    return Held(pid, size, "", start=70)


def mine(size: int, pid: int = 9) -> Held:
    return Held(pid, size, "mine", start=90)


def look(audit: Audit, *held: Held, at: float = 0, claim: Claim = MINE, uuid: str = GPU) -> list[Finding]:
    """What one sample brings to report."""
    return audit.update({uuid: held}, [claim], lambda one: one.pid != 1, at)[0]


def test_a_stranger_in_a_container_is_reported_at_once_and_once() -> None:
    """And stays in the list until it is gone; a process of the host never is in it."""
    audit = Audit()
    (found,) = look(audit, stranger(), stranger(pid=1))
    assert (found.key.kind, found.key.uuid, found.held, found.limit) == (STRANGER, GPU, GIB, 0)
    assert look(audit, stranger(2 * GIB), at=1) == []
    assert [(one.held, one.since) for one in audit.reported] == [(2 * GIB, 0)]
    new, over = audit.update({GPU: []}, [MINE], lambda _: True, 2)
    assert (new, [one.key for one in over], audit.reported) == ([], [found.key], [])


def test_a_later_process_with_a_strangers_pid_is_another() -> None:
    """It is reported for itself, and was seen once."""
    audit = Audit()
    look(audit, stranger())
    (found,) = look(audit, Held(7, GIB, "", start=71), at=1)
    assert found.seen == 1 and len(audit.reported) == 1


@pytest.mark.parametrize("token", ["mine", None])
def test_who_has_a_grant_or_has_ended_is_no_stranger(token: str | None) -> None:
    """What a process that ended leaves behind is its grant's, or nobody's."""
    assert look(Audit(), Held(7, GIB, token, start=70)) == []


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (0, 256 * MIB),
        (4 * GIB, 256 * MIB),
        (100 * GIB, 5 * GIB),
        (5120 * MIB, 256 * MIB),
        (100 * GIB + 19, 5 * GIB),
    ],
)
def test_the_margin_is_the_documented_one(limit: int, expected: int) -> None:
    """256 MiB or a twentieth, whichever is more."""
    assert margin(limit) == expected


@pytest.mark.parametrize(("held", "count"), [(4 * GIB + 256 * MIB, 0), (4 * GIB + 256 * MIB + 1, 1)])
def test_a_grant_beyond_its_margin_is_reported_when_seen_twice(held: int, count: int) -> None:
    """A single sample mixes moments, so a second one is asked for."""
    audit = Audit()
    assert look(audit, mine(held - GIB), mine(GIB, pid=10)) == []
    assert audit.suspects == bool(count) and audit.is_watching == bool(count)
    assert len(look(audit, mine(held - GIB), mine(GIB, pid=10), at=1)) == count
    assert not audit.suspects
    assert [(one.held, one.limit, len(one.processes)) for one in audit.reported] == [
        (held, 4 * GIB, 2)
    ] * count


def test_what_is_beyond_now_and_then_is_not_reported() -> None:
    """Samples must follow each other; what was never reported is not said to be over."""
    audit = Audit()
    for at in range(6):
        held = mine(6 * GIB if at % 2 else GIB)
        assert audit.update({GPU: [held]}, [MINE], lambda _: True, at) == ([], [])


def test_what_goes_on_is_neither_new_nor_over() -> None:
    """It is over with the first sample that lacks it, called as it was reported."""
    audit, more = Audit(), [mine(6 * GIB)]
    samples: list[dict[str, list[Held]]] = [{GPU: more}, {GPU: more}, {GPU: more}, {GPU: []}, {}]
    looks = [audit.update(one, [MINE], lambda _: True, 0) for one in samples]
    key = Key(OVER, GPU, "mine")
    found = [([one.key for one in new], [one.key for one in over]) for new, over in looks]
    assert found == [([], []), ([key], []), ([], []), ([], [key]), ([], [])]


@pytest.mark.parametrize(("held", "expected"), [(margin(0), []), (margin(0) + 1, [(OVER, OTHER, 0)])])
def test_a_gpu_that_was_not_granted_allows_nothing(held: int, expected: list[tuple[str, str, int]]) -> None:
    """Only the margin: a context there may be an accident."""
    audit = Audit()
    for at in (0, 1):
        found = look(audit, mine(held), at=at, uuid=OTHER)
    assert [(one.key.kind, one.key.uuid, one.limit) for one in found] == expected


def test_what_a_lowered_grant_held_before_is_tolerated_and_sinks() -> None:
    """`update --force` ends nothing; what was given back may not be taken again."""
    audit = Audit()
    lowered = Claim("mine", limits={GPU: 4 * GIB}, tolerated={GPU: 10 * GIB})
    for at, held in enumerate([10, 10, 7, 7]):
        assert look(audit, mine(held * GIB), at=at, claim=lowered) == []
    assert not audit.reported
    look(audit, mine(10 * GIB), at=5, claim=lowered)
    assert len(look(audit, mine(10 * GIB), at=6, claim=lowered)) == 1
    again = Claim("mine", limits={GPU: 3 * GIB}, tolerated={GPU: 10 * GIB + 1})
    look(audit, mine(10 * GIB), at=7, claim=again)
    assert not audit.reported, "another update tolerates what was held then"


def test_nobody_is_ended_for_what_was_seen_but_briefly() -> None:
    """A stranger must be there twice; an exceeded grant, whose code may have been loaded, for five seconds."""
    audit = Audit()
    look(audit, stranger(), mine(6 * GIB), at=10)
    assert not any(one.may_be_ended(10) for one in audit.reported)
    look(audit, stranger(), mine(6 * GIB), at=11)
    assert {one.key.kind: one.may_be_ended(11) for one in audit.reported} == {STRANGER: True, OVER: False}
    assert all(one.may_be_ended(10 + LASTING) for one in audit.reported)


def test_what_is_reported_comes_the_oldest_first() -> None:
    """In whichever order the driver lists processes."""
    audit = Audit()
    look(audit, stranger(pid=7), at=1)
    look(audit, stranger(pid=6), stranger(pid=7), at=2)
    assert [one.processes[0].pid for one in audit.reported] == [7, 6]
    assert [one.since for one in audit.reported] == [1, 2]


def test_a_grant_that_has_ended_meanwhile_hides_no_other() -> None:
    """The sample still has its processes; they are before the other's."""
    audit, ended = Audit(), Held(5, GIB, "ended", start=50)
    look(audit, ended, mine(5 * GIB))
    (found,) = look(audit, ended, mine(5 * GIB), at=1)
    assert found.key == Key(OVER, GPU, "mine")
