"""Many peers, slow ones, those who wait for a daemon that is not there, and those who may not see all."""

from __future__ import annotations

import grp
import json
import os
import resource
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.support.daemon import Daemon, Sleeper

from gpuportion import wire
from gpuportion.errors import RefusedError

NOBODY = 65534
PING = wire.encode(wire.Message({"v": 1, "op": "ping"}))


@pytest.fixture
def many_files() -> Iterator[None]:
    """This process has a thousand sockets and more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 4096:
        pytest.skip("needs 4096 open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_thousand_idle_connections_harm_nobody(daemon: Daemon, many_files: None) -> None:
    """Half of them have begun a frame; containers come and go as ever. Beyond what fits, a sentence says so."""
    with ExitStack() as stack:
        idle = [stack.enter_context(daemon.connect()) for _ in range(1000)]
        for sock in idle[::2]:
            sock.sendall(PING[:20])
        for number in range(5):
            with Sleeper() as container:
                daemon.confirm(daemon.create("GPU_MEMORY_LIMIT=60G", id=f"c{number}").token, container)
        more = [stack.enter_context(daemon.connect()) for _ in range(100)]
        refused = wire.receive(more[-1])
        assert (refused.status, refused.body[:5]) == (wire.REFUSED, b"GP303")
        assert b"too many connections" in refused.body
        for sock in more:
            sock.close()
        idle[1].sendall(PING)
        assert wire.receive(idle[1]).head["ready"]
    daemon.until(lambda: not daemon.ps())


def test_a_slow_reader_of_large_answers_harms_nobody(daemon: Daemon) -> None:
    """It asks for as much as it may and reads byte by byte; a hundred others have their answers meanwhile."""
    with daemon.connect() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.sendall(wire.encode(wire.Message({"v": 1, "op": "node"})) * 50)
        for _ in range(100):
            assert slow.recv(1)
            assert daemon.ask("ping").head["ready"]


class Activated(Daemon):
    """A daemon whose socket somebody else listens on, as systemd does: it stays while daemons come and go."""

    START = (
        "import os, sys; os.environ['LISTEN_PID'] = str(os.getpid()); os.dup2(int(sys.argv[1]), 3);"
        "os.execv(sys.argv[2], sys.argv[2:])"
    )

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.run_dir.mkdir()
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(self.run_dir / "gpuportiond.sock"))
        self.listener.listen(1024)
        os.set_inheritable(self.listener.fileno(), True)
        self.wrapper = (sys.executable, "-c", self.START, str(self.listener.fileno()))
        self.env["LISTEN_FDS"] = "1"

    def spawn(self) -> subprocess.Popen[bytes]:
        return self._spawn(pass_fds=[self.listener.fileno()])


@contextmanager
def asked_meanwhile(daemon: Daemon, answers: list[Any]) -> Iterator[None]:
    """Ten clients that ask for a portion while nobody is there to answer."""

    def ask(number: int) -> None:
        try:
            answers.append(daemon.create("GPU_MEMORY_LIMIT=1G", id=f"waiting-{number}"))
        except BaseException as error:
            answers.append(error)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    yield
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("end", [Daemon.kill, Daemon.stop])
def test_requests_wait_in_the_socket_while_the_daemon_is_exchanged(tmp_path: Path, end: Any) -> None:
    """Killed, or stopped for an upgrade: whoever asks meanwhile is answered by the next one, and by no error."""
    answers: list[Any] = []
    daemon = Activated(tmp_path)
    with daemon.listener, daemon, Sleeper() as container:
        before = daemon.create("GPU_MEMORY_LIMIT=1G", id="before")
        daemon.confirm(before.token, container)
        end(daemon)
        with asked_meanwhile(daemon, answers):
            daemon.start()
        assert [answer for answer in answers if isinstance(answer, BaseException)] == []
        for answer in answers:
            daemon.confirm(answer.token, container)
        assert len(daemon.ps()) == 11
    assert os.path.exists(daemon.run_dir / "gpuportiond.sock")


AS_NOBODY = """
import json, os, sys
sys.path[:0] = json.loads(sys.argv[2])
from pathlib import Path
from gpuportion.errors import RefusedError
from tests.support.daemon import Daemon
daemon = Daemon(Path(sys.argv[1]))
os.setgroups([])
os.setgid(int(sys.argv[4]))
os.setuid(int(sys.argv[3]))
fd = os.pidfd_open(os.getpid())
told = {}
def ask(name, op, **values):
    try:
        told[name] = daemon.ask(op, **values).head
    except RefusedError as refused:
        told[name] = refused.text
ask("too much", "exec", request={"GPU_MEMORY_LIMIT": "60G"}, argv0="x", mounts=False, fds=(fd,))
ask("own", "exec", request={"GPU_MEMORY_LIMIT": "1G"}, argv0="x", mounts=False, fds=(fd,))
ask("ps", "ps")
ask("node", "node")
ask("why", "why", container="secret-project")
ask("nothing", "why", container="zzz")
print(json.dumps(told))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: becomes another user")
@pytest.mark.parametrize("visible", ["own", "all"])
def test_another_user_is_told_what_the_rules_allow(tmp_path: Path, visible: str) -> None:
    """By `visible: own` no name, id or figure of another one's grant, in answers or refusals; what is free is known."""
    config = tmp_path / "config.yaml"
    config.write_text(f"visible: {visible}\n")
    for folder in [tmp_path, *list(tmp_path.parents)[:3]]:
        if folder != Path("/tmp"):
            folder.chmod(0o755)
    options = ["--socket-group", "nogroup", "--config", str(config)]
    with Daemon(tmp_path, options=options) as daemon, Sleeper() as container:
        daemon.confirm(daemon.create("GPU_MEMORY_LIMIT=40G", id="secret-project").token, container)
        group = grp.getgrnam("nogroup").gr_gid
        arguments = [str(tmp_path), json.dumps(sys.path), str(NOBODY), str(group)]
        done = subprocess.run(
            [sys.executable, "-c", AS_NOBODY, *arguments],
            capture_output=True,
            text=True,
            check=True,
            cwd=Path(__file__).parents[2],
        )
        told = json.loads(done.stdout)
        assert "secret" in json.dumps([row["name"] + row["container"] for row in daemon.ps()])
    assert "token" in told["own"]
    assert told["node"]["gpus"][0]["granted"] > 40 * 10**9
    users = [row["user"] for row in told["ps"]["grants"]]
    if visible == "all":
        assert users == [0, NOBODY] and "secret" in told["too much"] and isinstance(told["why"], dict)
        return
    assert users == [NOBODY]
    assert told["too much"].startswith("GP101") and "another user's" in told["too much"]
    assert told["why"].startswith("GP305")
    assert "secret" not in json.dumps({key: value for key, value in told.items() if key != "why"})


def test_a_refusal_of_another_version_says_both(daemon: Daemon) -> None:
    """A client that is newer than the daemon learns what it has to say."""
    with daemon.connect() as sock:
        wire.send(sock, wire.Message({"v": 7, "op": "ping"}, b"", wire.REQUEST))
        answer = wire.receive(sock)
    assert answer.status == wire.REFUSED and b"protocol 7; this daemon has 1" in answer.body
    with pytest.raises(RefusedError):
        daemon.ask("ping2")
