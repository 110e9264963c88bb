"""One connection's bytes, descriptors and bounds, on real sockets."""

from __future__ import annotations

import array
import os
import socket
from collections.abc import Iterator

import pytest

from gpuportion import wire
from gpuportion.allocator.connection import (
    FRAME,
    IDLE,
    MOST_FDS,
    OF_OTHERS,
    ClosedError,
    Connection,
    close_fds,
)
from gpuportion.allocator.peer import Peer

PING = wire.encode(wire.Message({"op": "ping"}))


@pytest.fixture
def pair() -> Iterator[tuple[Connection, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    connection = Connection(ours, Peer(1, 0, 0), now=0.0)
    yield connection, theirs
    connection.close()
    theirs.close()


def test_a_frame_is_whole_or_not_there(pair: tuple[Connection, socket.socket]) -> None:
    """However it is cut; what follows waits until the answer is sent."""
    connection, theirs = pair
    theirs.sendall(PING[:20])
    connection.read(1.0)
    assert connection.next_message() is None
    theirs.sendall(PING[20:] + PING)
    connection.read(2.0)
    assert connection.next_message() == wire.Message({"op": "ping"})
    assert connection.next_message() == wire.Message({"op": "ping"})
    assert connection.next_message() is None


def test_time_is_counted_from_the_first_byte_of_a_frame(pair: tuple[Connection, socket.socket]) -> None:
    """A peer that sends a byte now and then gains nothing by it."""
    connection, theirs = pair
    assert connection.deadline == IDLE
    for moment, byte in enumerate(PING[:5]):
        theirs.sendall(bytes([byte]))
        connection.read(float(moment))
        assert connection.deadline == FRAME
    theirs.sendall(PING[5:])
    connection.read(9.0)
    assert connection.next_message() is not None
    connection.answer(wire.Message({}), 9.5)
    assert connection.deadline == 9.5 + IDLE


@pytest.mark.parametrize(("head", "body"), [(OF_OTHERS.head + 1, 0), (2, 1), (2, wire.MAX_BODY)])
def test_others_than_root_send_small_frames_only(head: int, body: int) -> None:
    """They cannot make the daemon keep megabytes: a head alone, and a small one."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    connection = Connection(ours, Peer(1, 1000, 1000), now=0.0)
    theirs.sendall(wire.HEADER.pack(wire.MAGIC, 0, head, body))
    connection.read(0.0)
    with pytest.raises(wire.ProtocolError, match="more than you may send"):
        connection.next_message()
    connection.close()
    theirs.close()


def test_descriptors_are_bounded_close_on_exec_and_closed(pair: tuple[Connection, socket.socket]) -> None:
    """More than an operation needs are closed at once, the others with the message or the connection."""
    connection, theirs = pair
    with open("/dev/null") as null:
        before = set(os.listdir("/proc/self/fd"))
        fds = array.array("i", [null.fileno()] * (MOST_FDS + 3))
        for _ in range(2):
            theirs.sendmsg([PING], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
        connection.read(0.0)
        connection.read(0.0)
        message = connection.next_message()
        assert message is not None and len(message.fds) == MOST_FDS
        assert not any(os.get_inheritable(fd) for fd in message.fds)
        close_fds(message.fds)
        connection.close()
        assert len(os.listdir("/proc/self/fd")) <= len(before)


def test_descriptors_of_a_frame_that_is_no_json_are_closed(pair: tuple[Connection, socket.socket]) -> None:
    """The refusal comes before anybody took them over."""
    connection, theirs = pair
    with open("/dev/null") as null:
        before = len(os.listdir("/proc/self/fd"))
        bad = wire.HEADER.pack(wire.MAGIC, 0, 1, 0) + b"{"
        theirs.sendmsg([bad], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [null.fileno()]))])
        connection.read(0.0)
        with pytest.raises(wire.ProtocolError):
            connection.next_message()
        assert len(os.listdir("/proc/self/fd")) == before


def test_the_end_of_the_peer_is_the_end(pair: tuple[Connection, socket.socket]) -> None:
    """What it had sent before is still there to be dealt with: a note that waits for no answer."""
    connection, theirs = pair
    theirs.sendall(PING)
    theirs.close()
    connection.read(0.0)
    assert connection.next_message() == wire.Message({"op": "ping"})
    with pytest.raises(ClosedError):
        connection.read(0.0)


def test_an_answer_that_is_not_read_stays_and_stops_the_reading(
    pair: tuple[Connection, socket.socket],
) -> None:
    """At most one answer of each peer is in the daemon's memory."""
    connection, theirs = pair
    theirs.sendall(PING * 2)
    connection.read(0.0)
    assert connection.next_message() is not None
    connection.answer(wire.Message({}, b"x" * (4 << 20)), 0.0)
    assert connection.is_answering and connection.next_message() is None
    got = 0
    while connection.is_answering:
        got += len(theirs.recv(1 << 20))
        connection.write(1.0)
    assert connection.next_message() is not None


def test_an_answer_to_nobody_ends_the_connection(pair: tuple[Connection, socket.socket]) -> None:
    """No SIGPIPE, no exception that is not ours."""
    connection, theirs = pair
    theirs.close()
    with pytest.raises(ClosedError):
        connection.answer(wire.Message({}), 0.0)
