"""The event loop, round by round, on real sockets."""

from __future__ import annotations

import os
import resource
import selectors
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpuportion import wire
from gpuportion.allocator import connection, server
from gpuportion.allocator.hints import Hints
from gpuportion.allocator.peer import Peer
from gpuportion.allocator.pending import Wait
from gpuportion.allocator.server import Server


class Loop:
    """A server whose answers say who asked, and what it was told to look at."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.selector = selectors.DefaultSelector()
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(64)
        self.hints = Hints(self.selector)
        self.looked: list[str] = []
        self.asked: list[Peer] = []
        self.waits: list[Wait[wire.Message]] = []
        self.settled = 0
        self.server = Server(
            self.selector, self.listener, self.hints, self.answer, self.looked.append, self.settle
        )

    def settle(self) -> None:
        self.settled += 1

    def answer(self, peer: Peer, message: wire.Message) -> Wait[wire.Message]:
        """At once, or by one of `waits` where the message asks to wait."""
        self.asked.append(peer)
        waited: Wait[wire.Message] = Wait()
        if message.head.get("op") == "wait":
            self.waits.append(waited)
        else:
            waited.end(wire.Message({"looked": list(self.looked)}))
        return waited

    def connect(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(5)
        sock.connect(self.path)
        return sock

    def rounds(self, count: int = 3) -> None:
        for _ in range(count):
            self.server.round(0.05)


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Loop]:
    made = Loop(str(tmp_path / "sock"))
    yield made
    made.server.stop()
    made.server.run()  # nothing to do but to close its connections
    made.hints.close()
    made.listener.close()
    made.selector.close()


def test_a_peer_is_who_the_kernel_says(loop: Loop) -> None:
    """Not who it says it is."""
    with loop.connect() as sock:
        wire.send(sock, wire.Message({"op": "x", "uid": 7}))
        loop.rounds()
        assert loop.asked == [Peer(os.getpid(), os.geteuid(), os.getegid())]


def test_after_the_last_request_of_a_connection_it_is_closed(loop: Loop) -> None:
    """At once, or when its answer is there; what comes after it is not read."""
    with loop.connect() as sock, loop.connect() as slow:
        wire.send(sock, wire.Message({"op": "x", "last": True}))
        wire.send(slow, wire.Message({"op": "wait", "last": True}))
        loop.rounds()
        assert wire.receive(sock).head == {"looked": []}
        assert sock.recv(1) == b""
        loop.waits[0].end(wire.Message({"late": 1}))
        assert wire.receive(slow).head == {"late": 1}
        assert slow.recv(1) == b""


def test_a_request_that_is_not_the_last_keeps_the_connection(loop: Loop) -> None:
    """Whoever wants to ask again can."""
    with loop.connect() as sock:
        for last in (False, 1, "true"):
            wire.send(sock, wire.Message({"op": "x", "last": last}))
            loop.rounds()
            assert wire.receive(sock).head == {"looked": []}


def test_many_that_connect_do_not_keep_an_ended_process_waiting(loop: Loop) -> None:
    """Between some of them it has its turn."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as child:
        loop.hints.watch("ended", os.pidfd_open(child.pid))
        socks = [loop.connect() for _ in range(server.AT_ONCE + 1)]
        for sock in socks:
            wire.send(sock, wire.Message({"op": "x", "last": True}))
        loop.server.round(5)
        child.communicate()
        loop.server.round(5)
        answers = [wire.receive(sock).head for sock in socks]
        assert answers == [{"looked": []}] * server.AT_ONCE + [{"looked": ["ended"]}]
        for sock in socks:
            sock.close()


def test_what_nobody_waits_for_is_done_when_nobody_waits(loop: Loop) -> None:
    """Before it sleeps, and not while somebody asks."""
    with loop.connect() as sock:
        wire.send(sock, wire.Message({"op": "x"}))
        loop.server.round(5)
        assert wire.receive(sock).status == wire.OK
        assert loop.settled == 0
        loop.server.round(0)
        assert loop.settled == 1


def test_a_bug_beside_the_answers_ends_no_service(loop: Loop) -> None:
    """It is in the log, and the next question is answered."""

    def bug() -> None:
        raise ValueError("a bug")

    wake = os.eventfd(1)
    loop.server._settle = bug
    loop.server.on_readable(wake, bug)
    loop.rounds()
    with loop.connect() as sock:
        wire.send(sock, wire.Message({"op": "x"}))
        loop.rounds()
        assert wire.receive(sock).status == wire.OK
    loop.selector.unregister(wake)
    os.close(wake)


def test_a_process_that_ended_is_looked_at_before_requests_are_answered(loop: Loop) -> None:
    """What it held can be granted in the same round."""
    with loop.connect() as sock, subprocess.Popen(["cat"], stdin=subprocess.PIPE) as child:
        loop.rounds()
        loop.hints.watch("ended", os.pidfd_open(child.pid))
        wire.send(sock, wire.Message({"op": "x"}))
        child.communicate()
        loop.server.round(5)
        assert wire.receive(sock).head == {"looked": ["ended"]}


@pytest.mark.parametrize("begun", [b"", b"GPP1"], ids=["silent", "half-a-frame"])
def test_a_connection_that_takes_too_long_is_closed(
    loop: Loop, monkeypatch: pytest.MonkeyPatch, begun: bytes
) -> None:
    """Nobody has to wait for its end, and a byte now and then prolongs nothing."""
    monkeypatch.setattr(connection, "IDLE", 0.1)
    monkeypatch.setattr(connection, "FRAME", 0.1)
    monkeypatch.setattr(server, "SLOW", 0.05)
    with loop.connect() as sock:
        sock.sendall(begun)
        loop.rounds(10)
        assert sock.recv(1) == b""


def test_others_cannot_use_up_the_connections(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one too many is told so; root is not counted with them."""
    monkeypatch.setattr(server, "MOST_OF_ONE", 2)
    monkeypatch.setattr(server, "_peer", lambda sock: Peer(1, 1000, 1000))
    with loop.connect() as _, loop.connect() as _, loop.connect() as third:
        loop.rounds()
        answer = wire.receive(third)
        assert (answer.status, answer.body[:5]) == (wire.REFUSED, b"GP303")
        assert third.recv(1) == b""
        monkeypatch.setattr(server, "_peer", lambda sock: Peer(1, 0, 0))
        with loop.connect() as fourth:
            wire.send(fourth, wire.Message({"op": "x"}))
            loop.rounds()
            assert wire.receive(fourth).status == wire.OK


def test_without_a_descriptor_left_it_waits_and_goes_on(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    """No busy loop, no end: who waits is accepted later."""
    monkeypatch.setattr(server, "PATIENCE", 0.05)
    with loop.connect() as sock:
        wire.send(sock, wire.Message({"op": "x"}))
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))), hard))
        spare = []
        try:
            while True:
                spare.append(os.dup(0))
        except OSError:
            pass
        try:
            loop.server.round(1)
            assert loop.selector.select(0) == []  # it does not listen now
        finally:
            for fd in spare:
                os.close(fd)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        loop.rounds(5)
        assert wire.receive(sock).status == wire.OK


def test_a_look_that_fails_is_repeated_and_harms_no_other(loop: Loop) -> None:
    """A bug with one grant must not stop the node."""

    def look(token: str) -> None:
        loop.looked.append(token)
        if token == "bad" and loop.looked.count("bad") < 3:
            raise RuntimeError("a bug")

    loop.server._look = look
    for token in ("bad", "good"):
        loop.hints.soon(token, 0.0)
    loop.rounds(6)
    assert loop.looked.count("bad") == 3 and loop.looked.count("good") == 1


def test_a_late_answer_lets_others_be_served_first(loop: Loop) -> None:
    """And a second question on the same connection is answered after the first."""
    with loop.connect() as slow, loop.connect() as quick:
        wire.send(slow, wire.Message({"op": "wait"}))
        wire.send(slow, wire.Message({"op": "x"}))
        loop.rounds()
        wire.send(quick, wire.Message({"op": "x"}))
        loop.rounds()
        assert wire.receive(quick).status == wire.OK
        loop.waits[0].end(wire.Message({"late": True}))
        loop.rounds()
        assert wire.receive(slow).head == {"late": True}
        assert wire.receive(slow).head == {"looked": []}


def test_a_late_answer_for_one_who_is_gone_harms_nobody(loop: Loop) -> None:
    """Its connection is closed when the answer cannot be sent, and others are served."""
    with loop.connect() as sock:
        wire.send(sock, wire.Message({"op": "wait"}))
        loop.rounds()
    loop.waits[0].end(wire.Message({"late": True}))
    loop.rounds()
    with loop.connect() as sock:
        wire.send(sock, wire.Message({"op": "x"}))
        loop.rounds()
        assert wire.receive(sock).status == wire.OK
