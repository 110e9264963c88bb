"""How a refusal reaches the user, and what counts as one: whatever is not a whole, good answer."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
import threading

import pytest

from gpuportion import wire
from gpuportion.errors import TEMPLATES
from tests.support.launcher import EDITED, REQUEST, Launcher, config, edit_it, refused_with
from tests.support.scripted_daemon import ScriptedDaemon


@pytest.mark.parametrize(
    "message",
    ["GP101 container was not started\n      Try less.", 'GP102 "quoted" \t\\ é \u2028', "GP101 x\n\n"],
)
def test_a_refusal_reaches_log_and_stderr(launcher: Launcher, message: str) -> None:
    """After what is in the log already; the container is not started, its spec not touched."""
    text = launcher.write(config(REQUEST))
    launcher.log.write_text('{"level":"info","msg":"before"}\n')
    with ScriptedDaemon(launcher.run_dir, lambda _: wire.Message({}, message.encode(), wire.REFUSED)):
        result = launcher.create("--log-format", "json")
    assert refused_with(launcher, result) == message.rstrip("\n")
    assert [entry["msg"] for entry in launcher.logged()] == ["before", message.rstrip("\n")]
    assert launcher.config.read_bytes() == text


def test_a_log_of_text_gets_text(launcher: Launcher) -> None:
    """--log-format text is honoured."""
    launcher.write(config(REQUEST))
    with ScriptedDaemon(launcher.run_dir, lambda _: wire.Message({}, b"GP101 no\nnot at all", wire.REFUSED)):
        assert launcher.create("--log-format=text").returncode == 1
    assert launcher.log.read_text().endswith(' level=error msg="GP101 no\\nnot at all"\n')


def test_without_a_log_there_is_stderr(launcher: Launcher) -> None:
    """As podman calls it."""
    launcher.write(config(REQUEST))
    with ScriptedDaemon(launcher.run_dir, lambda _: wire.Message({}, b"GP101 no", wire.REFUSED)):
        result = launcher.run("run", "c1")
    assert refused_with(launcher, result) == "GP101 no"


def test_a_log_that_cannot_be_written_hides_nothing(launcher: Launcher) -> None:
    """Nor does a fifo without a reader hold the refusal up."""
    launcher.write(config(REQUEST))
    fifo = launcher.bundle.parent / "fifo"
    os.mkfifo(fifo)
    with ScriptedDaemon(launcher.run_dir, lambda _: wire.Message({}, b"GP101 no", wire.REFUSED)):
        for log in ("/nonexistent/x", str(launcher.bundle), str(fifo), ""):
            result = launcher.run(f"--log={log}", "run", "c1")
            assert (result.returncode, result.stderr) == (1, b"GP101 no\n")


def frame(magic: bytes = b"GPP1", status: int = 0, head: bytes = b"{}", body: bytes = EDITED) -> bytes:
    return struct.pack("<4sIII", magic, status, len(head), len(body)) + head + body


WRONG: dict[str, bytes | wire.Message | None] = {
    "nothing": None,
    "half a header": b"GPP1\0\0",
    "half a frame": frame()[:-1],
    "another protocol": frame(magic=b"HTTP"),
    "a text": b"HTTP/1.1 200 OK\r\n\r\nhello hello",
    "too much JSON": struct.pack("<4sIII", b"GPP1", 0, (1 << 20) + 1, 0),
    "too much body": struct.pack("<4sIII", b"GPP1", 0, 2, (16 << 20) + 1),
    "an unknown status": frame(status=7),
    "a refusal without reason": frame(status=1, body=b""),
    "a body that is no JSON": frame(body=b"GPU 0"),
    "a body that is no object": frame(body=b"[]"),
    "a body that is cut": frame(body=EDITED[:-1]),
}


@pytest.mark.parametrize("answer", WRONG.values(), ids=WRONG.keys())
def test_no_container_starts_on_a_wrong_answer(launcher: Launcher, answer: bytes | None) -> None:
    """Whatever is not a whole, good answer means: not without its limit."""
    text = launcher.write(config(REQUEST))
    with ScriptedDaemon(launcher.run_dir, lambda _: answer):
        result = launcher.create()
    assert refused_with(launcher, result).startswith("GP302 this node cannot enforce a memory limit: ")
    assert launcher.config.read_bytes() == text


def gp301(launcher: Launcher, waited: str) -> str:
    return "GP301 " + str(TEMPLATES["GP301"]).format(
        socket=launcher.run_dir / "gpuportiond.sock", waited=waited
    )


@pytest.mark.parametrize("stale", [False, True], ids=["no socket", "a socket of the dead"])
def test_a_stopped_daemon_is_told_of(launcher: Launcher, stale: bool) -> None:
    """GP301, with the seconds that it really waited."""
    launcher.write(config(REQUEST))
    launcher.run_dir.mkdir()
    if stale:
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(launcher.run_dir / "gpuportiond.sock"))
    result = launcher.create(env={"GPUPORTION_WAIT_S": "1"})
    assert refused_with(launcher, result) == gp301(launcher, "1")
    result = launcher.create(env={"GPUPORTION_WAIT_S": "0"})
    assert refused_with(launcher, result) == gp301(launcher, "0")


def test_a_daemon_that_says_nothing_is_told_of(launcher: Launcher) -> None:
    """It accepted, and then nothing came."""
    launcher.write(config(REQUEST))
    release = threading.Event()

    def hang(_: wire.Message) -> None:
        release.wait(60)

    with ScriptedDaemon(launcher.run_dir, hang):
        result = launcher.create(env={"GPUPORTION_WAIT_S": "1"})
        release.set()
    assert refused_with(launcher, result) == gp301(launcher, "1")


def test_a_daemon_that_is_being_restarted_is_waited_for(launcher: Launcher) -> None:
    """The socket appears a moment after the container was asked for."""
    launcher.write(config(REQUEST))
    launcher.run_dir.mkdir()
    process = subprocess.Popen([launcher.program, "create", "c1"], env=launcher.env, cwd=launcher.bundle)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.3)
    with ScriptedDaemon(launcher.run_dir, edit_it):
        assert process.wait(timeout=60) == 0
    assert launcher.config.read_bytes() == EDITED


def test_an_early_refusal_is_read_though_the_rest_was_not_wanted(launcher: Launcher) -> None:
    """A daemon that does not serve this user says so and closes, before it has read a large request."""
    launcher.write(config(REQUEST, more="x" * 4_000_000))
    launcher.run_dir.mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(launcher.run_dir / "gpuportiond.sock"))
        listener.listen()
        process = subprocess.Popen(
            [launcher.program, "create", "c1"], env=launcher.env, cwd=launcher.bundle, stderr=subprocess.PIPE
        )
        connection, _ = listener.accept()
        with connection:
            connection.sendall(frame(status=1, body=b"GP303 not you"))
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (1, b"GP303 not you\n")


STRANGER = """
import os, socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
os.setgid(65534), os.setuid(65534)
listener.listen()  # whoever does this is the peer
print("listening", flush=True)
sys.stdin.read()
"""


def test_a_stranger_on_the_socket_is_not_believed(launcher: Launcher) -> None:
    """What answers decides what root starts: it must be root, or who asks."""
    if os.geteuid() != 0:
        pytest.skip("needs root: becomes another user")
    launcher.write(config(REQUEST))
    launcher.run_dir.mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", STRANGER, str(launcher.run_dir / "gpuportiond.sock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as stranger:
        assert stranger.stdout is not None
        assert stranger.stdout.readline() == b"listening\n"
        result = launcher.create()
        stranger.communicate()
    assert "neither root nor you" in refused_with(launcher, result)


@pytest.mark.parametrize("moved", ["run", "./run"])
def test_a_relative_run_directory_is_refused(launcher: Launcher, moved: str) -> None:
    """It would be looked for in the bundle, and in another folder by each program."""
    launcher.write(config(REQUEST))
    with ScriptedDaemon(launcher.run_dir, edit_it) as daemon:
        result = launcher.run(
            "create", "-b", "bundle", "c1", env={"GPUPORTION_RUN_DIR": moved}, cwd=launcher.bundle.parent
        )
        assert "absolute path" in refused_with(launcher, result)
        assert launcher.run("delete", "c1", env={"GPUPORTION_RUN_DIR": moved}).returncode == 0
        assert daemon.seen == []


def test_a_run_directory_with_too_long_a_name_is_told_of(launcher: Launcher) -> None:
    """An address of a socket has 107 bytes."""
    launcher.write(config(REQUEST))
    result = launcher.create(env={"GPUPORTION_RUN_DIR": "/run/" + "x" * 120})
    assert "107 bytes" in refused_with(launcher, result)
