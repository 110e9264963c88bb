"""Rows on disk: one way to change them, and none that a crash can leave half changed."""

from __future__ import annotations

import dataclasses
import shutil
import sqlite3
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from gpuportion.allocator.devices import Gpu, Holding, Share, free
from gpuportion.allocator.lifecycle import Event, IllegalTransitionError, State, World
from gpuportion.allocator.placement import Placement, plan
from gpuportion.allocator.processes import Process
from gpuportion.allocator.reconcile import reconcile
from gpuportion.allocator.store import BrokenStoreError, FullStoreError, Grant, StaleError, Store
from gpuportion.shim.request import Request
from gpuportion.sizes import MIB

GPU = Gpu(index=0, uuid="GPU-0", model="A100", total=4096 * MIB, margin=0)


def grant(token: str = "a" * 32, size: int = 256 * MIB, **more: object) -> Grant:
    shares = (Share(GPU.uuid, GPU.index, size),)
    made = Grant(token, "boot-1", "container", "/run", "c1", 0, shares, created=1.0, deadline=61.0)
    return dataclasses.replace(made, **more)  # type: ignore[arg-type]


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "store.sqlite3")


def test_a_row_comes_back_whole(path: str) -> None:
    """Every field, after the file was closed and opened again."""
    store = Store(path)
    added = store.add(grant(name="träin", request={"GPU_MEMORY_LIMIT": "4G"}, creator=Process(7, 99)))
    active = store.apply(added, Event.CONFIRMED, holder=Process(8, 100), cgroups=("/sys/fs/cgroup/pids/c1",))
    store.close()
    again = Store(path)
    assert list(again) == [active] and again.get(active.token) == active
    assert active.holder == Process(8, 100) and active.state is State.ACTIVE
    again.close()


def test_generations_are_never_used_again(path: str) -> None:
    """Not even after the newest row is gone: a late message must not mean another container."""
    store = Store(path)
    first = store.add(grant())
    store.forget(store.apply(first, Event.UNDONE))
    store.close()
    again = Store(path)
    assert again.add(grant("b" * 32)).generation > first.generation
    again.close()


def test_a_change_for_a_state_that_is_past_is_refused(path: str) -> None:
    """Compare and set: what was decided on an old row is not done to the new one."""
    store = Store(path)
    added = store.add(grant())
    store.apply(added, Event.CONFIRMED)
    with pytest.raises(StaleError):
        store.apply(added, Event.EXPIRED)
    current = store.get(added.token)
    assert current is not None and current.state is State.ACTIVE
    with pytest.raises(IllegalTransitionError):
        store.apply(current, Event.EXPIRED)
    store.close()


def test_only_released_rows_can_be_forgotten(path: str) -> None:
    """A live grant is never dropped, whoever asks."""
    store = Store(path)
    added = store.add(grant())
    store.forget(added)
    assert store.live() == [added]
    store.close()
    again = Store(path)
    assert again.live() == [added]
    again.close()


def killed(store: Store) -> None:
    """What a killed daemon's store comes to: what is not in the file is lost."""
    store._late.clear()
    store.close()


def test_the_end_of_a_grant_is_written_with_the_next_change_as_one(path: str) -> None:
    """A crash before it leaves a grant that nobody lives by; never memory that two have."""
    store = Store(path)
    first, second = store.add(grant()), store.add(grant("b" * 32))
    store.apply(first, Event.UNDONE)
    store.forget(store.apply(second, Event.UNDONE))
    assert store.live() == []
    killed(store)
    store = Store(path)
    assert store.live() == [first, second]
    store.forget(store.apply(first, Event.UNDONE))
    store.apply(second, Event.UNDONE)
    third = store.add(grant("c" * 32))
    killed(store)
    again = Store(path)
    assert [(row.token, row.state) for row in again] == [
        (second.token, State.RELEASED),
        (third.token, State.RESERVED),
    ]
    again.close()


def test_the_ends_of_grants_are_written_when_it_is_time(path: str) -> None:
    """Without a change that would take them along."""
    store = Store(path)
    store.forget(store.apply(store.add(grant()), Event.UNDONE))
    store.settle()
    killed(store)
    again = Store(path)
    assert list(again) == []
    again.close()


def test_without_room_an_end_stays_to_be_written(path: str) -> None:
    """And the change that could not be written has not happened."""
    store = Store(path)
    added = store.add(grant())
    store.apply(added, Event.UNDONE)
    store._db.execute("PRAGMA query_only = ON")
    for attempt in (lambda: store.add(grant("b" * 32)), store.settle):
        with pytest.raises(FullStoreError):
            attempt()
    assert [row.token for row in store] == [added.token]
    store._db.execute("PRAGMA query_only = OFF")
    store.settle()
    killed(store)
    again = Store(path)
    assert [row.state for row in again] == [State.RELEASED]
    again.close()


def test_a_store_that_breaks_leaves_no_transaction_open(path: str) -> None:
    """What is to be written stays so, and is said to be broken each time."""
    store = Store(path)
    store.apply(store.add(grant()), Event.UNDONE)
    store._db.execute('DROP TABLE "grant"')
    for _ in range(2):
        with pytest.raises((BrokenStoreError, FullStoreError)):
            store.settle()
        assert not store._db.in_transaction
    store.close()


def test_the_file_is_for_root_alone(path: str) -> None:
    """It has the tokens."""
    Store(path).close()
    assert Path(path).stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("content", [b"no database" * 400, b"SQLite format 3\0" + b"\xff" * 4080])
def test_a_broken_file_is_said_to_be_broken(path: str, content: bytes) -> None:
    """And left alone: nothing else knows what is granted."""
    Path(path).write_bytes(content)
    with pytest.raises(BrokenStoreError):
        Store(path)
    assert Path(path).read_bytes() == content


def test_a_file_of_another_version_is_not_read(path: str) -> None:
    """An older daemon must not guess at what a newer one wrote."""
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 2")
    db.close()
    with pytest.raises(BrokenStoreError, match="version 2"):
        Store(path)


class Crashes(RuleBasedStateMachine):
    """Containers come, are confirmed or not, end noticed or not; the daemon dies at any moment and comes back, also
    between the row and what follows it. Memory is neither lost nor sold twice, and no container loses its grant."""

    tokens = Bundle("tokens")

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.mkdtemp()
        self.path = f"{self.folder}/store.sqlite3"
        self.now, self.number, self.boot = 0.0, 0, "boot-1"
        self.creating: set[str] = set()
        self.occupied: set[str] = set()

    @initialize()
    def starts(self) -> None:
        self.store = Store(self.path)

    def world(self) -> World:
        return World(self.boot, self.now, self.creating | self.occupied)

    def reconcile(self) -> None:
        for token, event in reconcile(list(self.store), self.world()).release:
            row = self.store.get(token)
            assert row is not None
            self.store.apply(row, event)

    @rule(target=tokens, size=st.integers(2, 8).map(lambda n: n * 128 * MIB))
    def is_asked_for(self, size: int) -> str:
        self.number += 1
        token = f"{self.number:032}"
        holdings = [Holding(row.id, share) for row in self.store.live() for share in row.shares]
        found = plan([GPU], holdings, Request(memory=(size,)))
        if isinstance(found, Placement):
            self.store.add(grant(token, size, boot=self.boot, deadline=self.now + 60))
            self.creating.add(token)
        else:
            assert size > free(GPU, holdings)
        return token

    @rule(token=tokens)
    def is_confirmed(self, token: str) -> None:
        row = self.store.get(token)
        if row is None or token not in self.creating:
            return
        if row.state is State.RELEASED or self.now >= row.deadline:
            self.creating.discard(token)  # refused, so its container fails
            return
        self.store.apply(row, Event.CONFIRMED)
        self.creating.discard(token)
        self.occupied.add(token)

    @rule(token=tokens)
    def creator_dies(self, token: str) -> None:
        self.creating.discard(token)

    @rule(token=tokens, noticed=st.booleans())
    def container_ends(self, token: str, noticed: bool) -> None:
        self.occupied.discard(token)
        if noticed:
            self.reconcile()

    @rule(seconds=st.floats(0, 70))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(noticed=st.booleans())
    def daemon_looks(self, noticed: bool) -> None:
        self.reconcile()
        for row in list(self.store):
            if row.state is State.RELEASED and noticed:
                self.store.forget(row)

    @rule()
    def daemon_is_killed_and_comes_back(self) -> None:
        live = self.store.live()
        killed(self.store)
        self.store = Store(self.path)
        self.nothing_is_sold_twice()
        written = self.store.live()
        assert [row for row in written if row in live] == live
        self.reconcile()
        left = {row.token for row in self.store.live()}
        assert self.occupied <= left <= self.occupied | self.creating

    @rule()
    def machine_is_booted(self) -> None:
        self.boot = f"boot-{self.number}-{self.now}"
        self.creating.clear()
        self.occupied.clear()
        self.reconcile()
        assert self.store.live() == []

    @invariant()
    def nothing_is_sold_twice(self) -> None:
        assert sum(share.limit for row in self.store.live() for share in row.shares) <= GPU.grantable

    @invariant()
    def nobody_who_runs_lost_a_grant(self) -> None:
        assert self.occupied <= {row.token for row in self.store.live()}

    def teardown(self) -> None:
        self.store.close()
        shutil.rmtree(self.folder)


Crashes.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestCrashes = Crashes.TestCase
