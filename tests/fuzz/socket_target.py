"""What may come over the socket, to a real daemon: each frame is answered whole, or the connection is closed; the
daemon lives on, meets no bug of its own, and never grants more than there is."""

from __future__ import annotations

import array
import atexit
import contextlib
import json
import os
import shutil
import socket
import struct
import tempfile
from pathlib import Path
from typing import Any, Final

from gpuportion import wire
from tests.fuzz.source import Source, changed
from tests.fuzz.spec_target import WORDS, check_edited
from tests.support.daemon import CONFIG, Daemon

CREATE: Final = {
    "op": "create",
    "root": "/run/x",
    "bundle": "/b",
    "preload_bytes": 0,
    "runtime": "/usr/bin/runc",
}
QUESTIONS: Final[tuple[dict[str, Any], ...]] = (
    {**CREATE, "verb": "create", "id": "c1"},
    {
        **CREATE,
        "verb": "restore",
        "id": "c2",
        "image_drivers": [{"name": "libcuda.so.1", "path": "/x/libcuda.so.1"}],
    },
    {"op": "confirm", "token": "0" * 32, "pid": 1},
    {"op": "deleted", "root": "/run/x", "id": "c1"},
    {"op": "exec", "request": {"GPU_MEMORY_LIMIT": "1G"}, "argv0": "train", "mounts": False},
    {"op": "update", "container": "c1", "memory": "2G", "force": True},
    {"op": "why", "container": "c1"},
    *({"op": op} for op in ("ps", "node", "config", "ping", "mig-list", "mig-profiles", "mig-gc")),
)
CONTAINER: Final = json.loads(CONFIG.read_text())
EVERY: Final = 200  # inputs between two looks at what is granted


class Target:
    """The daemon, which lives as long as this process."""

    def __init__(self) -> None:
        folder = Path(tempfile.mkdtemp(prefix="gpuportion-fuzz-"))
        self.daemon = Daemon(folder, options=["--reservation-timeout", "0.5"])
        self.daemon.start()
        self.count = 0
        atexit.register(self._end, folder)

    def _end(self, folder: Path) -> None:
        with contextlib.suppress(AssertionError):
            self.daemon.until(lambda: not self.daemon.ps())
        self.daemon.stop()
        shutil.rmtree(folder, ignore_errors=True)

    def check(self) -> None:
        """It answers, and promises no more than there is."""
        assert self.daemon.ask("ping").head["pid"] == self.daemon.pid
        for gpu in self.daemon.gpus():
            assert 0 <= gpu["granted"] <= gpu["total"] - gpu["reserved"] - gpu["margin"]
        log = self.daemon.log.read_text(errors="replace")
        met = log.find("a bug")
        assert met < 0 and "Traceback" not in log, log[met : met + 6000]


_target: list[Target] = []


def run(data: bytes) -> None:
    if not _target:
        _target.append(Target())
    target = _target[0]
    source = Source(data)
    with target.daemon.connect() as sock:
        if source.number(3) == 0:
            _send_and_end(sock, source.rest())
        else:
            _ask(sock, source)
    target.count += 1
    if target.count % EVERY == 1:
        target.check()


def _send_and_end(sock: socket.socket, data: bytes) -> None:
    """Any bytes, and no more after them."""
    with contextlib.suppress(OSError):
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
    _answers(sock)


def _ask(sock: socket.socket, source: Source) -> None:
    """Frames with JSON that is nearly right, some with descriptors that are none of those wanted."""
    with contextlib.suppress(OSError):
        for _ in range(source.number(3) + 1):
            head: Any = {"v": 1, **json.loads(json.dumps(source.one_of(QUESTIONS)))}
            for _ in range(source.number(3)):
                head = changed(head, source, WORDS)
            _send(sock, head, _body(source), source.number(5))
        sock.shutdown(socket.SHUT_WR)
    _answers(sock)


def _body(source: Source) -> bytes:
    what = source.number(3)
    if what == 0:
        return b""
    if what == 1:
        return source.take(source.number(255))
    container = json.loads(json.dumps(CONTAINER))
    container["process"]["env"] = [source.one_of(WORDS[:8]), f"GPU_MEMORY_LIMIT={source.number(90)}G"]
    for _ in range(source.number(3)):
        container = changed(container, source, WORDS)
    return json.dumps(container).encode()


def _send(sock: socket.socket, head: Any, body: bytes, fds: int) -> None:
    text = json.dumps(head).encode()
    frame = struct.pack("<4sIII", wire.MAGIC, 0, len(text), len(body)) + text + body
    extra = (
        [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [sock.fileno()] * fds))]
        if fds < 5 and fds
        else []
    )
    sent = sock.sendmsg([frame], extra)
    sock.sendall(frame[sent:])


def _answers(sock: socket.socket) -> None:
    """Whole frames until the end; a refusal begins with its code, a granted spec gives what it may and no more."""
    while True:
        try:
            answer = wire.receive(sock)
        except (ConnectionError, wire.ProtocolError) as problem:
            assert "frame too large" not in str(problem) and "JSON" not in str(problem), problem
            return
        if answer.status == wire.REFUSED:
            assert answer.body.decode()[:2] == "GP", answer.body
        elif "token" in answer.head and answer.body:
            check_edited_here(json.loads(answer.body))


def check_edited_here(spec: dict[str, Any]) -> None:
    """As in process, but with the daemon's own places."""
    for mount in spec["mounts"]:
        if mount.get("destination") == "/.gpuportion/policy":  # what is no mount is the runtime's to refuse
            assert "/grants/" in mount["source"] and os.path.getsize(mount["source"]) > 0
            mount["source"] = "/run/gpuportion/grants/" + mount["source"].partition("/grants/")[2]
    check_edited(spec)
