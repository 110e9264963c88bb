"""A reload reaches dockerd and nobody else, and the user is told what came of it."""

from __future__ import annotations

import subprocess
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
    with subprocess.Popen(command, executable="/bin/sh", stdout=subprocess.PIPE, text=True) as running:
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
