"""A reload reaches dockerd and nobody else, and the user is told what came of it."""

from __future__ import annotations

import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gpuportion.shim.engines import dockerd

WAITS = 'trap "echo reloaded; exit 0" HUP; echo ready; while :; do sleep 0.05; done'


@contextmanager
def process(name: str, *args: str) -> Iterator[subprocess.Popen[str]]:
    """A shell under another name that says when a SIGHUP reaches it."""
    command = [name, "-c", WAITS, *args]
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whom nohup has ignoring it, can't heed it
    with subprocess.Popen(command, executable="/bin/sh", stdout=subprocess.PIPE, text=True) as running:
        signal.signal(signal.SIGHUP, before)
        assert running.stdout is not None and running.stdout.readline() == "ready\n"
        try:
            yield running
        finally:
            running.kill()


def pidfile(folder: Path, pid: object) -> str:
    (folder / "docker.pid").write_text(str(pid))
    return str(folder / "docker.pid")


def test_dockerd_is_told_to_reload(tmp_path: Path) -> None:
    """By SIGHUP, which leaves containers alone."""
    with process("/usr/bin/dockerd") as running:
        lines = dockerd.reload("/etc/docker/daemon.json", pidfile(tmp_path, f"{running.pid}\n"))
        assert running.stdout is not None and running.stdout.read() == "reloaded\n"
    assert lines == [f"told dockerd (process {running.pid}) to reload; running containers go on"]


def test_another_process_of_a_stale_pidfile_is_left_alone(tmp_path: Path) -> None:
    """SIGHUP would end it."""
    with process("sshd") as running:
        lines = dockerd.reload("/etc/docker/daemon.json", pidfile(tmp_path, running.pid))
        assert running.poll() is None
    assert lines == [
        f"process {running.pid} of {tmp_path}/docker.pid is not dockerd: restart docker yourself"
    ]


@pytest.mark.parametrize("content", ["", "x", "-1", "4194305", None])
def test_no_dockerd_reads_the_file_when_it_starts(content: str | None, tmp_path: Path) -> None:
    """A pidfile that is missing, damaged, or names a process that has ended."""
    path = str(tmp_path / "none") if content is None else pidfile(tmp_path, content)
    assert dockerd.reload("/etc/docker/daemon.json", path) == [
        f"docker is not running (no dockerd by {path}): it reads the file when it starts"
    ]


@pytest.mark.parametrize(
    ("args", "warning"),
    [
        (
            ["--add-runtime", "x=/y"],
            "dockerd was started with --add-runtime: move that into /etc/docker/daemon.json",
        ),
        (["--default-runtime=runc"], "dockerd was started with --default-runtime: move that into"),
        (
            ["--config-file", "/srv/docker.json"],
            "this dockerd reads /srv/docker.json, not /etc/docker/daemon.json",
        ),
        (
            ["--config-file=/srv/docker.json"],
            "this dockerd reads /srv/docker.json, not /etc/docker/daemon.json",
        ),
    ],
)
def test_what_dockerds_command_line_says_against_it_is_told(
    args: list[str], warning: str, tmp_path: Path
) -> None:
    """A flag and a file that say the same keep dockerd from starting; another file is not ours."""
    with process("dockerd", *args) as running:
        lines = dockerd.reload("/etc/docker/daemon.json", pidfile(tmp_path, running.pid))
    assert len(lines) == 2 and lines[1].startswith(warning)


def test_whose_configuration_a_file_is(tmp_path: Path) -> None:
    """Only dockerd's, only while it runs, only the file that it was started with."""
    with process("dockerd", "--config-file", f"{tmp_path}/x") as running:
        path = pidfile(tmp_path, running.pid)
        assert dockerd.reads(f"{tmp_path}/../{tmp_path.name}/x", path)
        assert not dockerd.reads("/etc/docker/daemon.json", path)
    assert not dockerd.reads(f"{tmp_path}/x", path)
    with process("sshd") as other:
        assert not dockerd.reads("/etc/docker/daemon.json", pidfile(tmp_path, other.pid))


def answering(path: str, body: bytes) -> threading.Thread:
    """One connection's worth of a docker that says `body`."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    listener.listen()

    def answer() -> None:
        with listener, listener.accept()[0] as peer:
            assert peer.recv(4096).startswith(b"GET /info HTTP/1.0\r\n")
            peer.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n" + body)

    thread = threading.Thread(target=answer)
    thread.start()
    return thread


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b'{"Runtimes": {"runc": {}}}', {"Runtimes": {"runc": {}}}),
        (b'{"message": "no"}', None),
        (b"[]", None),
        (b"<html>", None),
        (b"", None),
    ],
)
def test_dockerd_is_asked_what_it_knows(body: bytes, told: object, tmp_path: Path) -> None:
    """By the socket of its configuration; what is no such answer is none."""
    thread = answering(f"{tmp_path}/docker.sock", body)
    assert dockerd.info(["tcp://0.0.0.0:2375", f"unix://{tmp_path}/docker.sock"]) == told
    thread.join()
    assert dockerd.info([f"unix://{tmp_path}/none"]) is None


def test_a_dockerd_that_never_settles_is_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have refused the file."""
    monkeypatch.setattr(dockerd, "SETTLING", 0.2)
    assert not dockerd.settles(lambda told: False, [f"unix://{tmp_path}/none"])
