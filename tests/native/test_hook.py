"""gpuportion-hook, as users get it and under the sanitizers: what it tells, when a container fails."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gpuportion import wire
from gpuportion.errors import TEMPLATES
from gpuportion.hooks import stages
from tests.support import native
from tests.support.parsers import Parsers
from tests.support.scripted_daemon import ScriptedDaemon

TOKEN = "0123456789abcdef" * 2


class Hook:
    """One build of the hook, called as the spec entries of gpuportion.hooks.stages say."""

    def __init__(self, folder: Path, target: str) -> None:
        self.run_dir = folder / "run"
        self.socket = str(self.run_dir / "gpuportiond.sock")
        self.entries = stages.entries(
            native.built(target, "hooks"), socket=self.socket, token=TOKEN, container="c1"
        )
        self.env = native.SANITIZER_ENV if "sanitized" in target else {}

    def call(self, stage: str, state: Any, *more: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
        entry = self.entries[stage]
        env = {**dict(pair.split("=", 1) for pair in entry["env"]), **self.env}
        given = state if isinstance(state, bytes) else json.dumps(state).encode()
        return subprocess.run(
            [*entry["args"], *more],
            executable=entry["path"],
            input=given,
            capture_output=True,
            env=env,
            timeout=entry["timeout"],
            check=False,
            **options,
        )

    def confirm(self, state: Any, *more: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
        return self.call("createRuntime", state, *more, **options)


@pytest.fixture(params=["gpuportion-hook", "gpuportion-hook-sanitized"])
def hook(request: pytest.FixtureRequest, tmp_path: Path) -> Hook:
    return Hook(tmp_path, str(request.param))


@pytest.fixture
def init() -> Iterator[subprocess.Popen[bytes]]:
    """A process that stands for the container's first one."""
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process
        process.kill()


def state_of(pid: int, **more: Any) -> dict[str, Any]:
    return {"ociVersion": "1.0.2", "id": "c1", "status": "creating", "pid": pid, "bundle": "/b", **more}


def done(_: wire.Message) -> wire.Message:
    return wire.Message({})


def refused(result: subprocess.CompletedProcess[bytes]) -> str:
    assert result.returncode == 1
    assert result.stdout == b""
    text = result.stderr.decode()
    assert text.endswith("\n") and text.count("GP") >= 1
    return text.removesuffix("\n")


def test_confirm_passes_a_pidfd_of_the_containers_init(hook: Hook, init: subprocess.Popen[bytes]) -> None:
    """With the first byte, as docs/protocol.md says; it becomes readable when the container ends."""
    with ScriptedDaemon(hook.run_dir, done) as daemon:
        result = hook.confirm(state_of(init.pid))
        assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")
        message = daemon.seen[0]
        assert message.head == {"v": 1, "op": "confirm", "token": TOKEN, "pid": init.pid, "last": True}
        (pidfd,) = message.fds
        assert f"Pid:\t{init.pid}\n" in Path(f"/proc/self/fdinfo/{pidfd}").read_text()
        assert select.select([pidfd], [], [], 0)[0] == []
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        assert select.select([pidfd], [], [], 30)[0] == [pidfd]


def test_a_refused_confirm_fails_the_container(hook: Hook, init: subprocess.Popen[bytes]) -> None:
    """The daemon's reason is the message."""
    with ScriptedDaemon(hook.run_dir, lambda _: wire.Message({}, b"GP305 too late", wire.REFUSED)):
        assert refused(hook.confirm(state_of(init.pid))) == "GP305 too late"


def test_a_confirm_without_a_daemon_fails_the_container(hook: Hook, init: subprocess.Popen[bytes]) -> None:
    """GP301; an unconfirmed grant would end while the container runs."""
    text = refused(hook.confirm(state_of(init.pid), "--timeout-ms", "100"))
    assert text == "GP301 " + str(TEMPLATES["GP301"]).format(socket=hook.socket, waited=0)


@pytest.mark.parametrize(
    "answer", [None, b"GPP1", b"HTTP/1.1 200 OK\r\n\r\n", b"GPP1" + b"\7\0\0\0" + bytes(8)]
)
def test_a_confirm_with_a_wrong_answer_fails_the_container(
    hook: Hook, init: subprocess.Popen[bytes], answer: bytes | None
) -> None:
    """Only a whole answer that says so is a yes."""
    with ScriptedDaemon(hook.run_dir, lambda _: answer):
        assert refused(hook.confirm(state_of(init.pid))).startswith("GP302 ")


def test_a_confirm_has_an_end(hook: Hook, init: subprocess.Popen[bytes]) -> None:
    """A daemon that never answers is given up before the runtime would kill the hook without a word."""
    release = threading.Event()

    def hang(_: wire.Message) -> None:
        release.wait(60)

    with ScriptedDaemon(hook.run_dir, hang):
        text = refused(hook.confirm(state_of(init.pid), "--timeout-ms", "1000"))
        release.set()
    assert text.startswith("GP301 ") and "(waited 1 s)" in text


def test_a_process_that_has_ended_fails_the_container(hook: Hook) -> None:
    """There is nothing to watch."""
    with subprocess.Popen(["true"]) as process:
        process.wait()
    with ScriptedDaemon(hook.run_dir, done) as daemon:
        assert "ended already" in refused(hook.confirm(state_of(process.pid)))
        assert daemon.seen == []


# As runc, crun 1.8 and crun 1.28 write it; the last with indents and escaped slashes.
STATES: list[tuple[str, bool]] = [
    ('{"ociVersion":"1.0.2-dev","id":"c1","status":"creating","pid":7,"bundle":"/b"}', True),
    (
        '{"ociVersion":"1.0","id":"c1","status":"created","pid":7,"root":"/r","annotations":{}}',
        True,
    ),
    (
        '{\n  "ociVersion": "1.0",\n  "id": "c1",\n  "pid": 7,\n  "bundle": "\\/b"\n}\n',
        True,
    ),
    ('{"annotations": {"pid": "8", "x": {"pid": 9}}, "pid": 7}', True),
    ('{"id":"c\\u0031","pid":7}', True),
    ('{"id":"c2","pid":7}', False),
    ('{"id":1,"pid":7}', False),
    ('{"id":"c1","pid":0}', False),
    ('{"id":"c1","pid":-7}', False),
    ('{"id":"c1","pid":"7"}', False),
    ('{"id":"c1","pid":7.5}', False),
    ('{"id":"c1","pid":4294967303}', False),
    ('{"id":"c1"}', False),
    ('{"id":"c1","pid":7', False),
    ('[{"id":"c1","pid":7}]', False),
    ("", False),
    ("pid=7", False),
]


@pytest.mark.parametrize("text,good", STATES)
def test_the_state_is_read_as_json(parsers: Parsers, text: str, good: bool) -> None:
    """Whatever its order and layout; a pid elsewhere in it is not the container's."""
    read, answer = parsers.ask("state", text, "c1")
    assert read == good
    assert answer == b"7" if good else answer.startswith(b"GP302 ")


def test_a_state_with_large_annotations_is_read(hook: Hook, init: subprocess.Popen[bytes]) -> None:
    """Kubernetes puts whole manifests there."""
    with ScriptedDaemon(hook.run_dir, done):
        assert hook.confirm(state_of(init.pid, annotations={"m": "x" * 600_000})).returncode == 0


def test_an_endless_state_is_refused(hook: Hook, init: subprocess.Popen[bytes]) -> None:
    """It is read up to a bound, and half of one is none."""
    with ScriptedDaemon(hook.run_dir, done) as daemon:
        assert "GP302" in refused(hook.confirm(state_of(init.pid, annotations={"m": "x" * (5 << 20)})))
        assert daemon.seen == []


# What it keeps of its caller: nothing


def test_it_leaves_the_containers_folder_and_descriptors(hook: Hook) -> None:
    """CVE-2024-21626: no directory, no descriptor of the runtime stays with a process of ours."""
    entry = hook.entries["createRuntime"]
    extra = os.pipe()
    with subprocess.Popen(
        entry["args"],
        executable=entry["path"],
        stdin=subprocess.PIPE,
        env=hook.env,
        cwd="/tmp",
        pass_fds=extra,
    ) as process:
        deadline = threading.Event()
        proc = Path(f"/proc/{process.pid}")
        for _ in range(3000):  # it is waiting for its stdin, after it has dropped the rest
            if (proc / "cwd").readlink() == Path("/"):
                break
            deadline.wait(0.01)
        while not set(os.listdir(proc / "fd")).isdisjoint(map(str, extra)):
            deadline.wait(0.01)
        assert (proc / "cwd").readlink() == Path("/")
        assert sorted(os.listdir(proc / "fd")) == ["0", "1", "2"]
        process.communicate(b"", timeout=30)
        assert process.returncode == 1
    for fd in extra:
        os.close(fd)


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["confirm"],
        ["createRuntime"],
        ["stopped", "--socket", "/s", "--token", "t"],
        ["confirm", "--socket", "/s"],
        ["--help"],
    ],
)
def test_other_words_are_a_usage_error(hook: Hook, words: list[str]) -> None:
    """Exit status 2, how to call it on stderr."""
    result = subprocess.run(
        [hook.entries["createRuntime"]["path"], *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=hook.env,
        check=False,
    )
    assert (result.returncode, result.stdout) == (2, b"")
    assert result.stderr.startswith(b"usage: gpuportion-hook ")


def test_a_confirm_that_comes_before_the_daemon_is_back_waits(
    hook: Hook, init: subprocess.Popen[bytes]
) -> None:
    """An upgrade restarts the daemon between create and its hook."""
    entry = hook.entries["createRuntime"]
    with subprocess.Popen(
        entry["args"], executable=entry["path"], stdin=subprocess.PIPE, env=hook.env
    ) as process:
        assert process.stdin is not None
        process.stdin.write(json.dumps(state_of(init.pid)).encode())
        process.stdin.close()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.3)
        with ScriptedDaemon(hook.run_dir, done):
            assert process.wait(timeout=60) == 0
