"""Whose a process is, and how often /proc is asked for it."""

from __future__ import annotations

import mmap
import os
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack

import pytest
from tests.support.daemon import Sleeper

from gpuportion.allocator import cgroups
from gpuportion.allocator.owners import MAPS, SELDOM, UNDECIDED, Claim, Owners
from gpuportion.allocator.processes import Process, start_of

NOW = float("inf")
LEDGER = 99


class Proc:
    """What /proc would say, and how often it was asked."""

    def __init__(self, places: dict[int, str] | None = None, maps: Iterable[int] = ()) -> None:
        self.hierarchy, self.mount = next(iter(cgroups.mounts().items()))
        self.places = places or {}
        self.maps = set(maps)
        self.asked: Counter[str] = Counter()

    def membership(self, pid: int) -> dict[str, str]:
        self.asked["cgroup"] += 1
        return {self.hierarchy: self.places.get(pid, "/user")}

    def mapped(self, pid: int) -> frozenset[int]:
        self.asked["maps"] += 1
        return frozenset({1, LEDGER} if pid in self.maps else {1})

    def owners(self) -> Owners:
        return Owners(self.membership, self.mapped)


@pytest.fixture
def pids() -> Iterator[list[int]]:
    """Living processes."""
    with ExitStack() as stack:
        yield [stack.enter_context(Sleeper()).pid for _ in range(MAPS + 3)]


def tokens(owners: Owners, pids: Iterable[int], *claims: Claim) -> list[str | None]:
    found = owners.of(list(pids), claims, NOW)
    return [found[pid][1] for pid in pids]


def test_a_process_is_its_cgroups_grants(pids: list[int]) -> None:
    """Also one further down, and of one container within another the inner one's; else by pid, or by its ledger."""
    one, two, nested, other, holder, alike, mapper, both = pids[:8]
    paths = {one: "/docker/c1", two: "/docker/c2/a/b", nested: "/docker/c1/docker/c3/x", alike: "/docker/c11"}
    proc = Proc({**paths, both: "/docker/c1"}, maps=[mapper, both])
    start = start_of(holder)
    assert start is not None
    at = proc.mount
    claims = (
        Claim("one", (f"{at}/docker/c1",)),
        Claim("two", ("/nowhere", f"{at}/docker/c2")),
        Claim("three", (f"{at}/docker/c1/docker/c3",)),
        Claim("x", holder=Process(holder, start), ledger=LEDGER),
        Claim("later", holder=Process(other, 1)),
    )
    found = tokens(proc.owners(), pids[:8], *claims)
    assert found == ["one", "two", "three", "", "x", "", "x", "one"]


def test_what_a_process_maps_is_read_more_and_more_seldom(pids: list[int]) -> None:
    """A stranger beside a `gpuportion exec` costs a look now and then, and one that maps its ledger late is found."""
    proc, claims = Proc(), (Claim("x", ledger=LEDGER),)
    owners, stranger = proc.owners(), pids[0]
    asked = []
    for _ in range(5 * SELDOM):
        before = proc.asked["maps"]
        assert tokens(owners, [stranger], *claims) == [""]
        asked.append(proc.asked["maps"] - before)
    assert max(asked) == 1
    assert [place for place, times in enumerate(asked) if times] == [0, 1, 3, 7, 15, 31, 47, 63, 79]
    assert proc.asked["cgroup"] == proc.asked["maps"]
    proc.maps.add(stranger)
    assert "x" in {tokens(owners, [stranger], *claims)[0] for _ in range(SELDOM)}


def test_who_was_found_is_not_asked_for_again(pids: list[int]) -> None:
    """However many there are, while process and grant live."""
    proc = Proc({pid: f"/docker/{pid}" for pid in pids})
    claims = tuple(Claim(f"of {pid}", (f"{proc.mount}/docker/{pid}",)) for pid in pids)
    owners = proc.owners()
    for _ in range(10):
        assert tokens(owners, pids, *claims) == [f"of {pid}" for pid in pids]
    assert proc.asked == {"cgroup": len(pids)}
    assert tokens(owners, pids, *claims[1:])[0] == ""


def test_without_a_ledger_to_look_for_nothing_mapped_is_read(pids: list[int]) -> None:
    """Containers have cgroups."""
    proc = Proc()
    assert tokens(proc.owners(), pids, Claim("c", ("/nowhere",))) == [""] * len(pids)
    assert proc.asked["maps"] == 0


def test_many_new_ones_have_their_turn_one_sample_after_the_other(pids: list[int]) -> None:
    """Who waits is nobody's yet, rather than a stranger to be blamed; a sample costs the daemon so many files."""
    proc, claims = Proc(maps=pids[-1:]), (Claim("x", ledger=LEDGER),)
    owners = proc.owners()
    assert tokens(owners, pids, *claims) == [""] * MAPS + [UNDECIDED] * (len(pids) - MAPS)
    assert proc.asked["maps"] == MAPS
    assert tokens(owners, pids, *claims) == [""] * (len(pids) - 1) + ["x"], "before those that were nobody's"
    assert proc.asked["maps"] == 2 * MAPS


def test_a_pid_that_another_process_has_is_asked_for_anew() -> None:
    """What was known of the one that ended says nothing of it, nor what NVML said before it began."""
    owners = Owners()
    with Sleeper() as first:
        start = start_of(first.pid)
        assert start is not None
        claim = Claim("mine", holder=Process(first.pid, start))
        assert tokens(owners, [first.pid], claim) == ["mine"]
    assert owners.of([first.pid], (claim,), NOW) == {first.pid: (start, "mine")}, (
        "NVML may list it a while longer"
    )
    assert owners.of([first.pid], (), NOW) == {first.pid: (0, None)}
    assert owners.of([os.getpid()], (), 0.0) == {os.getpid(): (0, None)}


def test_a_process_is_known_by_the_ledger_that_it_maps() -> None:
    """As /proc tells of a real one."""
    with tempfile.TemporaryFile(dir="/dev/shm") as file:
        file.truncate(4096)
        with mmap.mmap(file.fileno(), 4096):
            claim = Claim("mine", ledger=os.fstat(file.fileno()).st_dev)
            assert tokens(Owners(), [os.getpid()], claim) == ["mine"]
