"""A real daemon process on simulated GPUs, with a private run directory: what tests/daemon starts.

    with Daemon(tmp_path, sim="a100-80gb:1") as daemon:
        granted = daemon.create("GPU_MEMORY_LIMIT=4G", id="train")      # as the launcher does
        with Sleeper() as container:
            daemon.confirm(granted.token, container)                    # as the hook does
            daemon.ps()

`stop` ends it by SIGTERM, `kill` by SIGKILL; `start` after either finds what was left. Containers are plain
processes (`Sleeper`), in a cgroup of their own where a test makes one (`Cgroup`).
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, TypeVar

from gpuportion import wire
from gpuportion.errors import RefusedError

CONFIG: Final = Path(__file__).parents[1] / "unit" / "docker-config.json"
"""A config.json as docker writes it, of its usual size."""

PATIENCE: Final = float(os.environ.get("GPUPORTION_TEST_PATIENCE", "150"))
"""Seconds until a test takes it that something will never be. Where most tests must fail, less is enough."""

GB: Final = 10**9
MIB: Final = 1 << 20


@dataclass(frozen=True)
class Granted:
    """The answer to a create: `spec` is None where the container is to be left as it is."""

    token: str
    spec: dict[str, Any] | None


D = TypeVar("D", bound="Daemon")


class Daemon:
    """A daemon and how to talk to it. `folder` becomes its run, state and log directory."""

    def __init__(self, folder: Path, sim: str = "a100-80gb:1", options: Sequence[str] = ()) -> None:
        self.run_dir = folder / "run"
        self.state_dir = folder / "state"
        self.log = folder / "gpuportiond.log"
        self.options = list(options)
        self.sim = sim
        self.env = {**os.environ, "GPUPORTION_RUN_DIR": str(self.run_dir)}
        self.process: subprocess.Popen[bytes] | None = None
        self.python = sys.executable
        """Whose gpuportion it is."""
        self.wrapper: tuple[str, ...] = ()
        """What starts it: a command before its own."""

    # Its life

    def start(self) -> None:
        """Start it and wait until it is ready. AssertionError with its log if it ends instead."""
        self.process = self.spawn()
        self.until(self._answers)

    def start_unasked(self) -> None:
        """Start it and wait until it says that it is ready: a question would be its first answer."""
        before = self._says_ready()
        self.process = self.spawn()
        self.until(lambda: self._says_ready() > before)

    def _says_ready(self) -> int:
        return self.log.read_text().count("gpuportiond: ready on") if self.log.exists() else 0

    def spawn(self) -> subprocess.Popen[bytes]:
        """Start it without waiting."""
        return self._spawn()

    def _spawn(self, pass_fds: Sequence[int] = ()) -> subprocess.Popen[bytes]:
        command = [self.python, "-m", "gpuportion", "daemon", "--sim", self.sim]
        places = ["--run-dir", str(self.run_dir), "--state-dir", str(self.state_dir)]
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [*self.wrapper, *command, *places, *self.options],
                env=self.env,
                stdout=log,
                stderr=log,
                cwd="/",
                pass_fds=pass_fds,
            )

    def stop(self) -> int:
        return self._end(signal.SIGTERM)

    def kill(self) -> int:
        return self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(timeout=30)

    def __enter__(self: D) -> D:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leaves no grant, and so no mount, behind."""
        if self.process is not None and self.process.poll() is not None:
            self.start()
        try:
            if kind is None:
                self.until(lambda: not self.ps())
        finally:
            self.stop()
            unmount_below(self.run_dir)

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def descriptors(self) -> int:
        """How many files the daemon has open."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def tail(self) -> str:
        return "\n".join(self.log.read_text().splitlines()[-20:])

    def until(self, condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
        """Wait for what must come to be by itself; the bound is only there to end a broken test."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"not within {seconds} s; the log ends:\n{self.tail()}"
            time.sleep(0.01)

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"it ended: {self.tail()}"
        try:
            return bool(self.ask("ping").head["ready"])
        except OSError:
            return False

    def listens(self) -> bool:
        try:
            self.connect().close()
        except OSError:
            return False
        return True

    # Its protocol

    def connect(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(60)
            sock.connect(str(self.run_dir / "gpuportiond.sock"))
        except BaseException:
            sock.close()
            raise
        return sock

    def ask(self, op: str, *, body: bytes = b"", fds: tuple[int, ...] = (), **values: Any) -> wire.Message:
        """One question. RefusedError if it is refused."""
        with self.connect() as sock:
            return self.ask_on(sock, op, body=body, fds=fds, **values)

    def ask_on(
        self, sock: socket.socket, op: str, *, body: bytes = b"", fds: tuple[int, ...] = (), **values: Any
    ) -> wire.Message:
        wire.send(sock, wire.Message({"v": 1, "op": op, **values}, body, wire.REQUEST, fds))
        answer = wire.receive(sock)
        if answer.status != wire.OK:
            raise RefusedError(answer.body.decode())
        return answer

    def create(
        self, *env: str, id: str = "c1", root: str = "/run/test", preload: bytes = b"", **spec: Any
    ) -> Granted:
        """What the launcher asks: a container of docker's with these variables and spec keys."""
        config = json.loads(CONFIG.read_text())
        config["hostname"] = id[:12]
        config["process"]["env"] = ["PATH=/bin", *env]
        config.update(spec)
        answer = self.ask(
            "create",
            body=json.dumps(config).encode() + preload,
            verb="create",
            root=root,
            id=id,
            bundle="/tmp/bundle",
            preload_bytes=len(preload),
        )
        return Granted(answer.head.get("token", ""), json.loads(answer.body) if answer.body else None)

    def confirm(self, token: str, container: Sleeper) -> None:
        self.ask("confirm", token=token, pid=container.pid, fds=(container.pidfd,))

    def ps(self) -> list[dict[str, Any]]:
        rows = self.ask("ps").head["grants"]
        assert isinstance(rows, list)
        return rows

    def gpus(self) -> list[dict[str, Any]]:
        rows = self.ask("node").head["gpus"]
        assert isinstance(rows, list)
        return rows

    def folders(self) -> set[str]:
        """Tokens of which pages are there."""
        return set(os.listdir(self.run_dir / "grants"))


class Sleeper:
    """A process that stands for a container's first one, until it is ended."""

    def __init__(self, command: Sequence[str] = ("sleep", "3600")) -> None:
        self.process = subprocess.Popen(command)
        self.pid = self.process.pid
        self.pidfd = os.pidfd_open(self.pid)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()

    def __enter__(self) -> Sleeper:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()
        os.close(self.pidfd)


class Cgroup:
    """A cgroup as a container runtime makes one: a folder in v2's hierarchy or in v1's of pids and memory."""

    def __init__(self, name: str) -> None:
        v2 = Path("/sys/fs/cgroup/cgroup.controllers").exists()
        hierarchies = [""] if v2 else ["pids", "memory"]
        self.folders = [Path("/sys/fs/cgroup") / each / name for each in hierarchies]

    def add(self, pid: int, below: str = "") -> None:
        for folder in self.folders:
            (folder / below).mkdir(parents=True, exist_ok=True)
            (folder / below / "cgroup.procs").write_text(str(pid))

    def remove(self) -> None:
        for folder in self.folders:
            for path in sorted([folder, *folder.rglob("*")], reverse=True):
                if path.is_dir():
                    path.rmdir()


def unmount_below(folder: Path) -> None:
    """A test that failed half way leaves ledgers mounted; the next run's folder must not have them."""
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for point in reversed([point for point in points if point.startswith(f"{folder}/")]):
        subprocess.run(["umount", "-l", point], check=False)
