"""Frames: what is sent is received, and what is none is said to be none."""

from __future__ import annotations

import os
import re
import socket
import threading
from collections.abc import Iterator

import pytest

from gpuportion import wire
from gpuportion.wire import HEADER, MAGIC, MAX_ANSWER, MAX_BODY, Message, ProtocolError

Pair = tuple[socket.socket, socket.socket]
MESSAGE = Message({"op": "create", "name": "ü"}, b"\0body", wire.REFUSED)


@pytest.fixture
def pair() -> Iterator[Pair]:
    one, other = socket.socketpair()
    with one, other:
        yield one, other


def test_a_frame_is_as_the_c_programs_read_it() -> None:
    """docs/protocol.md: magic, status, two sizes, JSON without blanks, body."""
    head = b'{"a":1,"b":[2,3]}'
    frame = b"GPP1\x01\0\0\0" + len(head).to_bytes(4, "little") + b"\x02\0\0\0" + head + b"xy"
    assert wire.encode(Message({"a": 1, "b": [2, 3]}, b"xy", wire.REFUSED)) == frame
    assert wire.sizes(frame[: HEADER.size]) == (wire.REFUSED, len(head), 2)


def test_what_is_sent_is_received(pair: Pair) -> None:
    """Also when it comes in pieces; of the frame behind it nothing is taken."""
    one, other = pair

    class Trickling(socket.socket):
        def recv(self, size: int, flags: int = 0) -> bytes:
            return super().recv(min(size, 7), flags)

    for _ in range(2):
        wire.send(one, MESSAGE)
        wire.send(one, Message({}))
    assert wire.receive(other) == MESSAGE
    assert wire.receive(other) == Message({})
    with Trickling(fileno=os.dup(other.fileno())) as trickling:
        assert wire.receive(trickling) == MESSAGE
        assert wire.receive(trickling) == Message({})


def test_descriptors_go_with_the_first_byte(pair: Pair) -> None:
    """In one message with it, however large the frame is."""
    one, other = pair
    read, write = os.pipe()
    frame = Message({"op": "confirm"}, b"x" * (1 << 20), fds=(read, write))
    sender = threading.Thread(target=wire.send, args=(one, frame))
    sender.start()
    first, fds, _, _ = socket.recv_fds(other, 1, 4)
    rest = b""
    while len(rest) < len(wire.encode(frame)) - 1:
        rest += other.recv(1 << 16)
    sender.join()
    assert first + rest == wire.encode(frame)
    assert [os.fstat(fd).st_ino for fd in fds] == [os.fstat(fd).st_ino for fd in (read, write)]
    for fd in (*fds, read, write):
        os.close(fd)


def test_nothing_more_is_sent_behind_a_whole_frame(pair: Pair) -> None:
    """The peer may have answered and gone meanwhile: an empty write would fail."""
    one, _ = pair
    read, write = os.pipe()

    class Counting(socket.socket):
        def sendall(self, *_: object) -> None:
            raise AssertionError("sent again")

    with Counting(one.family, one.type, fileno=os.dup(one.fileno())) as counting:
        wire.send(counting, Message({}, fds=(read,)))
    os.close(read)
    os.close(write)


@pytest.mark.parametrize(
    ("header", "why"),
    [
        (HEADER.pack(b"HTTP", 0, 0, 0), "not a gpuportion frame"),
        (HEADER.pack(MAGIC, 0, MAX_ANSWER + 1, 0), f"frame too large: {MAX_ANSWER + 1} + 0 bytes"),
        (HEADER.pack(MAGIC, 0, 0, MAX_BODY + 1), f"frame too large: 0 + {MAX_BODY + 1} bytes"),
    ],
)
def test_a_header_of_another_kind_is_refused(header: bytes, why: str) -> None:
    """Before anything is read or kept for it."""
    with pytest.raises(ProtocolError, match=f"^{re.escape(why)}$"):
        wire.sizes(header)


def test_the_largest_frame_is_a_frame() -> None:
    """Exactly as much as fits."""
    assert wire.sizes(HEADER.pack(MAGIC, 0, MAX_ANSWER, MAX_BODY)) == (0, MAX_ANSWER, MAX_BODY)


def test_a_head_that_is_json_already_is_sent_as_it_is() -> None:
    """Put together elsewhere, in as many turns as that took."""
    data = wire.encode(Message({"not": "this"}, b"body", text=b'{"grants":[]}'))
    assert data[16:] == b'{"grants":[]}body'
    assert wire.sizes(data[:16]) == (wire.OK, 13, 4)


def test_an_empty_head_is_an_empty_object() -> None:
    """As the C programs answer."""
    assert wire.decode(wire.OK, b"", b"x", (7,)) == Message({}, b"x")
    assert wire.decode(wire.OK, b"", b"x", (7,)).fds == (7,)


@pytest.mark.parametrize(
    ("head", "why"),
    [
        (b"{", "^bad JSON: Expecting property name"),
        (b"\xff", "^bad JSON: "),
        (b"[" * 100_000, "^bad JSON: "),
        (b"[]", "^the head is not a JSON object$"),
    ],
)
def test_a_head_that_is_no_object_is_refused(head: bytes, why: str) -> None:
    """The peer is mad."""
    with pytest.raises(ProtocolError, match=why):
        wire.decode(wire.OK, head, b"")


def test_a_connection_that_ends_within_a_frame_is_said_to(pair: Pair) -> None:
    """Half an answer is none."""
    one, other = pair
    one.sendall(wire.encode(MESSAGE)[:-1])
    one.close()
    with pytest.raises(ProtocolError, match=r"^the connection ended within a frame$"):
        wire.receive(other)


@pytest.mark.parametrize("half", [r"\ud800", r"\uDC00", r"\ud800\u0041"])
def test_halves_of_characters_are_refused(half: str) -> None:
    """JSON has escapes for them; a name with one could be neither written down nor shown."""
    with pytest.raises(ProtocolError, match="bad JSON: half of a character"):
        wire.decode(wire.REQUEST, f'{{"id":"{half}"}}'.encode(), b"")
    whole = wire.decode(wire.REQUEST, rb'{"id":"\ud83d\ude00 \\ud800"}', b"")
    assert whole.head == {"id": "\U0001f600 \\ud800"}
