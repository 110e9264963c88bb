"""The life of grants as a rule machine: real rows, pages and processes, and a daemon that ends between any two steps.

Its book of what should be is its own: a container that was told "yes" twice holds its memory until it is ended, and
nobody else does for longer than a look or a restart. A crash is an exception that nothing catches, thrown at a named
step; what the next daemon finds is what was on the disk. Pages of the released go when other steps let them."""

from __future__ import annotations

import os
import selectors
import shutil
import subprocess
import tempfile
from collections.abc import Collection
from typing import Final

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.support.daemon import Sleeper

from gpuportion.allocator import fault_points, pages, processes
from gpuportion.allocator.devices import Share, uuid_bytes
from gpuportion.allocator.grant import Intent
from gpuportion.allocator.grants import CONTAINER, Grants
from gpuportion.allocator.hints import Hints
from gpuportion.allocator.lifecycle import State
from gpuportion.allocator.rebuild import Found
from gpuportion.allocator.recovery import recover
from gpuportion.allocator.store import Grant, Store
from gpuportion.allocator.sweeper import Gone, at_once
from gpuportion.sizes import MIB

UUID: Final = "GPU-00000000-0000-0000-0000-000000000001"
ROOM: Final = 1024 * MIB
ELSEWHERE: Final = ("answering", "answered", "portion-made", "mig-")
"""Steps that are not in Grants: of the server, of `exec`, and of MIG. tests/daemon dies at those."""

CRASHES: Final = [place for place in fault_points.POINTS if not place.startswith(ELSEWHERE)]


class Died(BaseException):
    """The daemon is no more."""


def die() -> None:
    raise Died


class Life(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.mkdtemp(prefix="gpuportion-machine-")
        self.running: dict[str, tuple[Sleeper, int]] = {}
        """By token: the container that was told yes, and what it holds."""
        self.maybe: set[str] = set()
        """Tokens whose confirm was cut short by a crash while their container lives on."""
        self.sleepers: list[Sleeper] = []
        self.grants: Grants | None = None
        self.to_go: list[Gone] = []
        """Pages that another thread is to take away, and what follows."""

    # The daemon

    @initialize()
    def starts(self) -> None:
        os.makedirs(f"{self.folder}/grants", exist_ok=True)
        self.selector = selectors.DefaultSelector()
        self.hints = Hints(self.selector)
        self.store = Store(f"{self.folder}/store")
        self.grants = Grants(
            self.store,
            self.hints,
            self.folder,
            reservation_timeout=3600,
            remove_more=lambda token: None,
            on_instance=lambda token: False,
        )
        recover(self.grants, self.survivors)
        self.grants.sweep = self.to_go.append

    def is_over(self) -> None:
        """What a process leaves behind that ends: nothing but its files."""
        fault_points.disarm()
        self.hints.close()
        self.selector.close()
        self.store.close()
        self.to_go.clear()
        self.grants = None

    @precondition(lambda self: self.grants is None)
    @rule(place=st.sampled_from(["", *CRASHES]))
    def starts_again(self, place: str) -> None:
        self.arm(place, 1)
        try:
            self.starts()
        except Died:
            self.is_over()
        fault_points.disarm()

    def survivors(self, tokens: Collection[str]) -> list[Found]:
        """As rebuild.find tells them; here nobody has a mount namespace to be found by."""
        return [
            Found(token, "a", "", 0, False, (Share(UUID, 0, size),), processes.identify(one.pidfd), ())
            for token, (one, size) in self.running.items()
            if token in tokens
        ]

    @precondition(lambda self: self.grants is None)
    @rule()
    def loses_its_store(self) -> None:
        for name in os.listdir(self.folder):
            if name.startswith("store"):
                os.unlink(f"{self.folder}/{name}")

    @precondition(lambda self: self.grants is not None)
    @rule()
    def is_killed(self) -> None:
        self.is_over()

    @precondition(lambda self: self.grants is not None)
    @rule(place=st.sampled_from(CRASHES), after=st.integers(1, 3))
    def will_die(self, place: str, after: int) -> None:
        self.arm(place, after)

    def arm(self, place: str, after: int) -> None:
        fault_points.disarm()
        if place:
            fault_points.arm({fault_points.VARIABLE: f"{place}:{after}"}, end=die)

    # Containers

    @precondition(lambda self: self.grants is not None)
    @rule(
        size=st.integers(2, 6).map(lambda n: n * 128 * MIB), id=st.sampled_from("ab"), finishes=st.booleans()
    )
    def container_comes(self, size: int, id: str, finishes: bool) -> None:
        """Launcher and hook, by the same few ids again and again; some never come to the hook."""
        assert self.grants is not None
        held = sum(holding.share.limit for holding in self.grants.holdings())
        if held + size > ROOM:
            return
        creator, container = Sleeper(), Sleeper()
        self.sleepers += [creator, container]
        token = ""
        try:
            token = self.reserve(creator, id, size).token
            if finishes:
                self.grants.confirm(token, container.pid, container.pidfd, beside=os.getpid())
                self.running[token] = container, size
                creator.end()
                return
        except Died:
            confirmed = (
                bool(token) and (row := self.store.get(token)) is not None and row.state is State.ACTIVE
            )
            if confirmed:
                self.running[token] = (
                    container,
                    size,
                )  # its hook was not answered; its runtime may let it live
            self.is_over()
            if confirmed:
                creator.end()
                return
        creator.end()
        container.end()

    def reserve(self, creator: Sleeper, id: str, size: int) -> Grant:
        assert self.grants is not None
        self.grants.supersede("/run", id, creator.pid)
        share = Share(UUID, 0, size)
        grant = self.grants.reserve(
            Intent(CONTAINER, (share,), {}, root="/run", id=id, creator=processes.meet(creator.pid))
        )
        self.grants.make_pages(grant, libcuda="/c", libnvml="/n", ledger="/l")
        return grant

    @precondition(lambda self: bool(self.running))
    @rule(which=st.integers(0, 9), told=st.booleans())
    def container_ends(self, which: int, told: bool) -> None:
        token = sorted(self.running)[which % len(self.running)]
        container, _ = self.running.pop(token)
        container.end()
        if self.grants is not None and told:
            self.looks()

    @precondition(lambda self: self.grants is not None)
    @rule()
    def looks(self) -> None:
        """At everything, as it does in time by itself."""
        assert self.grants is not None
        try:
            for grant in list(self.store):
                self.grants.look(grant.token)
        except Died:
            self.is_over()

    @precondition(lambda self: bool(self.to_go))
    @rule(which=st.integers(0, 9))
    def pages_go(self, which: int) -> None:
        gone = self.to_go.pop(which % len(self.to_go))
        try:
            at_once(gone)
        except Died:
            self.is_over()

    # What always holds

    @invariant()
    def never_more_than_there_is(self) -> None:
        assert sum(size for _, size in self.running.values()) <= ROOM
        if self.grants is not None:
            assert sum(holding.share.limit for holding in self.grants.holdings()) <= ROOM

    @invariant()
    def who_runs_has_a_grant_and_its_page(self) -> None:
        if self.grants is None:
            return
        rows = {grant.token: grant for grant in self.grants.live()}
        for token, (_, size) in self.running.items():
            assert rows[token].state is State.ACTIVE and rows[token].shares[0].limit == size
            policy = pages.read_policy(f"{self.folder}/grants/{token}/policy")
            assert [gpu.limit for gpu in policy.gpus] == [size] and policy.gpus[0].uuid == uuid_bytes(UUID)

    def teardown(self) -> None:
        """In the end a daemon that is let live finds all of it: who runs, and not a byte more."""
        try:
            if self.grants is not None:
                self.is_over()
            self.starts()
            self.who_runs_has_a_grant_and_its_page()
            self.looks()
            assert {grant.token for grant in self.store} == set(self.running)
            assert set(os.listdir(f"{self.folder}/grants")) == set(self.running)
            for container, _ in self.running.values():
                container.end()
            self.looks()
            while self.to_go:
                self.pages_go(0)
            assert list(self.store) == [] and os.listdir(f"{self.folder}/grants") == []
        finally:
            self.clean_up()

    def clean_up(self) -> None:
        fault_points.disarm()
        for sleeper in self.sleepers:
            sleeper.end()
            os.close(sleeper.pidfd)
        if self.grants is not None:
            self.is_over()
        for token in os.listdir(f"{self.folder}/grants"):
            subprocess.run(
                ["umount", "-l", f"{self.folder}/grants/{token}/ledger"], check=False, capture_output=True
            )
        shutil.rmtree(self.folder)


EXAMPLES: Final = 500 if os.environ.get("GPUPORTION_TEST_LONG") else 25
Life.TestCase.settings = settings(max_examples=EXAMPLES, stateful_step_count=25, deadline=None)
TestLife = Life.TestCase
