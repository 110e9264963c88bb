"""The frames that the daemon and its clients exchange over a unix stream socket. See docs/protocol.md.

    0        4        8         12       16
    | "GPP1" | status | n JSON  | n body | JSON ... | body ... |     all integers little-endian u32

The status is outside of the JSON so that the C programs need no JSON parser: they read status and body.
Knows nothing of operations or sockets' addresses.
"""

from __future__ import annotations

import array
import json
import socket
import struct
from dataclasses import dataclass, field
from typing import Any, Final

MAGIC: Final = b"GPP1"
HEADER: Final = struct.Struct("<4sIII")
MAX_JSON: Final = 1 << 20
"""Bytes of JSON in a request."""
MAX_ANSWER: Final = 16 << 20
"""Bytes of JSON in an answer."""
MAX_BODY: Final = 16 << 20

REQUEST: Final = 0
OK: Final = 0
REFUSED: Final = 1
"""The body is the message for the user, with its code."""


class ProtocolError(Exception):
    """The peer does not speak this protocol; the connection is of no more use."""


@dataclass(frozen=True, slots=True)
class Message:
    """One frame. `fds` came with it or go with it; whoever takes a Message owns them. `text`: the head as JSON, where
    it was put together so; then `head` is not looked at."""

    head: dict[str, Any]
    body: bytes = b""
    status: int = OK
    fds: tuple[int, ...] = field(default=(), compare=False)
    text: bytes = b""


_text_of: Final = json.JSONEncoder(separators=(",", ":")).encode
"""Made once: `json.dumps` makes one for every call that is not as usual."""


def encode(message: Message) -> bytes:
    return frame(message.status, message.text or _text_of(message.head).encode(), message.body)


def frame(status: int, head: bytes, body: bytes) -> bytes:
    """`head`: the JSON."""
    return HEADER.pack(MAGIC, status, len(head), len(body)) + head + body


def sizes(header: bytes | bytearray) -> tuple[int, int, int]:
    """(status, JSON bytes, body bytes) of a frame's first 16 bytes."""
    magic, status, n_head, n_body = HEADER.unpack_from(header)
    if magic != MAGIC:
        raise ProtocolError("not a gpuportion frame")
    if n_head > MAX_ANSWER or n_body > MAX_BODY:
        raise ProtocolError(f"frame too large: {n_head} + {n_body} bytes")
    return status, n_head, n_body


def decode(status: int, head: bytes, body: bytes, fds: tuple[int, ...] = ()) -> Message:
    try:
        parsed = json.loads(head) if head else {}
    except (ValueError, RecursionError) as problem:
        raise ProtocolError(f"bad JSON: {problem}") from None
    if not isinstance(parsed, dict):
        raise ProtocolError("the head is not a JSON object")
    if rb"\ud" in head.lower() and not _is_text(parsed):
        raise ProtocolError("bad JSON: half of a character")
    return Message(parsed, body, status, fds)


def _is_text(parsed: object) -> bool:
    """Whether UTF-8 can hold it: JSON has escapes for halves of characters, too."""
    try:
        json.dumps(parsed, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def send(sock: socket.socket, message: Message) -> None:
    """Send one frame on a blocking socket; descriptors go with its first byte."""
    data = encode(message)
    sent = 0
    if message.fds:
        sent = sock.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", message.fds))])
    # Sending nothing is a system call too, which fails if the peer has answered and gone meanwhile.
    if sent < len(data):
        sock.sendall(data[sent:])


def receive(sock: socket.socket) -> Message:
    """Read one frame from a blocking socket. ProtocolError if the peer ends before it is whole."""
    status, n_head, n_body = sizes(_exactly(sock, HEADER.size))
    return decode(status, _exactly(sock, n_head), _exactly(sock, n_body))


def _exactly(sock: socket.socket, n: int) -> bytes:
    got = bytearray()
    while len(got) < n:
        piece = sock.recv(n - len(got))
        if not piece:
            raise ProtocolError("the connection ended within a frame")
        got += piece
    return bytes(got)
