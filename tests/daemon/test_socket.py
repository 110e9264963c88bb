"""Who may ask the daemon for what, and what it does with peers that are mad, slow or many."""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.daemon import Daemon, Sleeper

from gpuportion import wire
from gpuportion.errors import RefusedError

NOBODY = 65534

ASK_AS_NOBODY = """
import grp, json, os, sys
sys.path[:0] = json.loads(sys.argv[2])
from pathlib import Path
from gpuportion.errors import RefusedError
from tests.support.daemon import Daemon
daemon = Daemon(Path(sys.argv[1]))
# Only now: this checkout may lie where nobody may read.
os.setgroups([])
os.setgid(grp.getgrnam("nogroup").gr_gid)
os.setuid(int(sys.argv[3]))
asking = ("ping", "ps", "node", "config", "mig-list", "mig-profiles", "why")
changing = ("create", "confirm", "deleted", "update", "mig-gc", "set-role", "remove-role")
for op in (*asking, *changing):
    try:
        head = daemon.ask(op, container="nobody").head
        print(op, "done", "token" in json.dumps(head))
    except RefusedError as refused:
        print(op, refused.code)
"""


@pytest.fixture
def open_daemon(tmp_path: Path) -> Daemon:
    """One whose socket nobody's group may use."""
    tmp_path.chmod(0o755)
    for parent in list(tmp_path.parents)[:3]:
        if parent != Path("/tmp"):
            parent.chmod(0o755)
    return Daemon(tmp_path, options=["--socket-group", "nogroup"])


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_only_root_may_do_what_the_launcher_and_the_hook_do(open_daemon: Daemon) -> None:
    """Others may ask questions, and are not told the tokens of grants."""
    with open_daemon as daemon, Sleeper() as container:
        daemon.confirm(daemon.create("GPU_MEMORY_LIMIT=4G").token, container)
        arguments = [str(daemon.run_dir.parent), json.dumps(sys.path), str(NOBODY)]
        done = subprocess.run(
            [sys.executable, "-c", ASK_AS_NOBODY, *arguments],
            capture_output=True,
            text=True,
            check=True,
            cwd=Path(__file__).parents[2],
        )
    assert done.stdout.split("\n")[:-1] == [
        "ping done False",
        "ps done False",
        "node done False",
        "config done False",
        "mig-list done False",
        "mig-profiles done False",
        "why GP305",
        "create GP303",
        "confirm GP303",
        "deleted GP303",
        "update GP303",
        "mig-gc GP303",
        "set-role GP303",
        "remove-role GP303",
    ]


def test_the_socket_is_for_root_and_its_group(daemon: Daemon) -> None:
    """0660; the lock and the store are nobody else's either."""
    assert (daemon.run_dir / "gpuportiond.sock").stat().st_mode & 0o777 == 0o660
    assert (daemon.run_dir / "store.sqlite3").stat().st_mode & 0o077 == 0
    assert (daemon.run_dir / "grants").stat().st_mode & 0o777 == 0o711


@pytest.mark.parametrize(
    "garbage",
    [
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", id="http"),
        pytest.param(struct.pack("<4sIII", b"GPP1", 0, 1 << 31, 0), id="huge-head"),
        pytest.param(struct.pack("<4sIII", b"GPP1", 0, 2, 1 << 30) + b"{}", id="huge-body"),
        pytest.param(struct.pack("<4sIII", b"GPP1", 7, 2, 0) + b"{}", id="an-answer"),
        pytest.param(struct.pack("<4sIII", b"GPP1", 0, 5, 0) + b"\xff\xfe{}!", id="no-json"),
        pytest.param(struct.pack("<4sIII", b"GPP1", 0, 2, 0) + b"[]", id="a-list"),
        pytest.param(struct.pack("<4sIII", b"GPP1", 0, 6000, 0) + b"[" * 6000, id="deep"),
        pytest.param(struct.pack("<4sIII", b"GPP1", 0, 0, 0), id="empty"),
    ],
)
def test_garbage_is_refused_with_a_sentence(daemon: Daemon, garbage: bytes) -> None:
    """And costs nobody else anything."""
    with daemon.connect() as sock:
        sock.sendall(garbage)
        answer = wire.receive(sock)
    assert (answer.status, answer.body[:5]) == (wire.REFUSED, b"GP304")
    assert daemon.ask("ping").head["ready"]


@pytest.mark.parametrize(
    "values",
    [
        pytest.param({"verb": "start"}, id="verb"),
        pytest.param({"id": ""}, id="no-id"),
        pytest.param({"id": 5}, id="id-no-text"),
        pytest.param({"root": None}, id="no-root"),
        pytest.param({"preload_bytes": -1}, id="negative"),
        pytest.param({"preload_bytes": 10**9}, id="more-than-there-is"),
        pytest.param({"preload_bytes": True, "body": b""}, id="empty-config"),
        pytest.param({"body": b"{"}, id="half-a-config"),
        pytest.param({"body": b"[]"}, id="a-list"),
        pytest.param({"body": b'{"process": {"env": "GPU_MEMORY_LIMIT=1G"}}'}, id="env-no-list"),
        pytest.param(
            {"body": b'{"annotations": {"gpuportion.io/memory-limit": 4}}'}, id="annotation-no-text"
        ),
        pytest.param({"v": 2}, id="version"),
        pytest.param({"op": "destroy"}, id="operation"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(daemon: Daemon, values: dict[str, object]) -> None:
    """Bad input is never taken for no request."""
    good = {"verb": "create", "root": "", "id": "c1", "bundle": "/b", "preload_bytes": 0, "body": b"{}"}
    given = {"op": "create", **good, **values}
    body = given.pop("body")
    assert isinstance(body, bytes)
    with daemon.connect() as sock:
        wire.send(sock, wire.Message({"v": 1, **given}, body, wire.REQUEST))
        answer = wire.receive(sock)
    assert (answer.status, answer.body[:5]) == (wire.REFUSED, b"GP304")
    assert daemon.ps() == []


def test_half_frames_and_silence_hold_up_nobody(daemon: Daemon) -> None:
    """Hundreds of peers that say nothing, or begin and stop: the next one is answered."""
    silent = [daemon.connect() for _ in range(300)]
    for sock in silent[::2]:
        sock.sendall(wire.encode(wire.Message({"v": 1, "op": "ping"}))[:10])
    assert daemon.ask("ping").head["ready"]
    for sock in silent:
        sock.close()


def test_a_peer_that_does_not_read_its_answers_is_not_waited_for(daemon: Daemon) -> None:
    """Its next requests wait in its own socket, not in the daemon's memory."""
    frame = wire.encode(wire.Message({"v": 1, "op": "node"}))
    with daemon.connect() as sock:
        sock.setblocking(False)
        try:
            for _ in range(100_000):
                sock.send(frame)
        except BlockingIOError:
            pass
        assert daemon.ask("ping").head["ready"]


def test_requests_one_after_the_other_on_one_connection(daemon: Daemon) -> None:
    """Also when they come in one piece."""
    frame = wire.encode(wire.Message({"v": 1, "op": "ping"}))
    with daemon.connect() as sock:
        sock.sendall(frame * 3)
        assert [wire.receive(sock).head["ready"] for _ in range(3)] == [True] * 3


def test_a_frame_byte_by_byte_is_a_frame(daemon: Daemon) -> None:
    """A stream has no messages; a descriptor comes with the first byte."""
    with daemon.connect() as sock:
        for byte in wire.encode(wire.Message({"v": 1, "op": "ping"})):
            sock.sendall(bytes([byte]))
        assert wire.receive(sock).head["ready"]


def test_a_refused_container_reads_why(daemon: Daemon) -> None:
    """The sentences of the request and of placement come over the wire as they are."""
    with pytest.raises(RefusedError, match="GP102 GPU_MEMORY_LIMIT=4000 has no unit"):
        daemon.create("GPU_MEMORY_LIMIT=4000")
    with pytest.raises(RefusedError, match=r"GP107 GPU_MEMORY_LIMIT=900\.00 GB"):
        daemon.create("GPU_MEMORY_LIMIT=900G")
    with pytest.raises(RefusedError, match="GP107 GPU_SELECT=H100"):
        daemon.create("GPU_MEMORY_LIMIT=4G", "GPU_SELECT=H100")


def test_a_listening_socket_of_systemd_is_used(tmp_path: Path) -> None:
    """LISTEN_FDS: requests queue while the daemon starts."""
    daemon = Daemon(tmp_path)
    daemon.run_dir.mkdir()
    path = str(daemon.run_dir / "gpuportiond.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        code = (
            "import os, sys; os.environ['LISTEN_PID'] = str(os.getpid()); os.dup2(int(sys.argv[1]), 3);"
            "os.execv(sys.executable, [sys.executable, '-m', 'gpuportion', 'daemon', *sys.argv[2:]])"
        )
        arguments = [
            "--sim",
            daemon.sim,
            "--run-dir",
            str(daemon.run_dir),
            "--state-dir",
            str(tmp_path / "s"),
        ]
        inode = os.stat(path).st_ino
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified, daemon.log.open("ab") as log:
            notified.bind(str(tmp_path / "notify"))
            notified.settimeout(60)
            daemon.process = subprocess.Popen(
                [sys.executable, "-c", code, str(listener.fileno()), *arguments],
                env={**daemon.env, "LISTEN_FDS": "1", "NOTIFY_SOCKET": str(tmp_path / "notify")},
                pass_fds=[listener.fileno()],
                stderr=log,
            )
            assert notified.recv(100) == b"READY=1"
    assert daemon.ask("ping").head["pid"] == daemon.pid
    assert os.stat(path).st_ino == inode
    assert daemon.stop() == 0
