"""`ps` beside many grants: nobody waits for it, and its answer is of one moment."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator

import pytest
from tests.support.daemon import MIB, Daemon, Sleeper

from gpuportion import wire

MANY = 60
"""Grants whose ledgers take longer to read than one turn."""

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: ledgers are mounted")


def send(sock: socket.socket, op: str, **values: object) -> None:
    wire.send(sock, wire.Message({"v": 1, "op": op, **values}, b"", wire.REQUEST))


@pytest.fixture
def tokens(daemon: Daemon) -> Iterator[list[str]]:
    """Of MANY containers that live as long as the test."""
    with Sleeper() as process:
        made = [daemon.create("GPU_MEMORY_LIMIT=512Mi", id=f"c{number}").token for number in range(MANY)]
        for token in made:
            daemon.confirm(token, process)
        yield made


def test_what_is_asked_after_ps_is_done_before_its_end(daemon: Daemon, tokens: list[str]) -> None:
    """Both come at once, `ps` first: the last ledgers are read when the other one has been served, and the answer tells
    the new amount."""
    os.kill(daemon.pid, signal.SIGSTOP)
    try:
        with daemon.connect() as one, daemon.connect() as other:
            send(one, "ps")
            send(other, "update", container="c0", memory="1Gi", force=False)
            os.kill(daemon.pid, signal.SIGCONT)
            rows = wire.receive(one).head["grants"]
            assert wire.receive(other).status == wire.OK
    finally:
        os.kill(daemon.pid, signal.SIGCONT)
    told = {row["token"]: row["gpus"][0]["limit"] // MIB for row in rows}
    assert told == {token: 512 if number else 1024 for number, token in enumerate(tokens)}


def test_many_ask_at_once_and_leave(daemon: Daemon, tokens: list[str]) -> None:
    """Who doesn't wait for the answer costs nobody anything: the others get theirs."""
    before = daemon.descriptors()
    asking = [daemon.connect() for _ in range(20)]
    for sock in asking:
        send(sock, "ps")
    for sock in asking[::2]:
        sock.close()
    for sock in asking[1::2]:
        assert [row["token"] for row in wire.receive(sock).head["grants"]] == tokens
        sock.close()
    daemon.until(lambda: daemon.descriptors() <= before)
