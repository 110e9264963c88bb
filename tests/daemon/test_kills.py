"""A daemon that is killed at every named step under load, and each time started again to die at the next.

The clients keep books of their own: what was granted, confirmed and is still held. They never hold more together than
there is, nobody who holds is ever missing, and in the end all of it comes back. `make test-long`: 500 kills."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.support.daemon import MIB, Daemon, Sleeper

from gpuportion import wire
from gpuportion.allocator.fault_points import POINTS, VARIABLE
from gpuportion.errors import RefusedError

LONG = bool(os.environ.get("GPUPORTION_TEST_LONG"))
KILLS = 500 if LONG else 24
LATEST = 6 if LONG else 2  # it dies when it comes to a place for the so manieth time, at most
CLIENTS = 5
PORTIONS = 4  # fit; so somebody is always refused
AT_START = ("recovering", "adopted", "orphans-removed")
SECONDS = 20.0 if LONG else 6.0  # until a step that the load has not come to is given up

EXEC = """
import array, json, os, socket, struct, sys
sock = socket.socket(socket.AF_UNIX)
sock.connect(sys.argv[1])
head = dict(v=1, op="exec", request={"GPU_MEMORY_LIMIT": sys.argv[2]}, argv0="train", mounts=False)
text = json.dumps(head).encode()
fds = array.array("i", [os.pidfd_open(os.getpid())])
frame = struct.pack("<4sIII", b"GPP1", 0, len(text), 0) + text
sock.sendmsg([frame], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
_, status, n, _ = struct.unpack("<4sIII", sock.recv(16, socket.MSG_WAITALL))
print(json.loads(sock.recv(n, socket.MSG_WAITALL))["token"] if status == 0 else "", flush=True)
sys.stdin.read()
"""


class Books:
    """What clients know that they hold: bytes by token."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.held: dict[str, int] = {}
        self.granted = 0
        self.lock = threading.Lock()

    @contextlib.contextmanager
    def holding(self, token: str, size: int) -> Iterator[None]:
        with self.lock:
            assert token not in self.held, "one token for two"
            self.held[token] = size
            self.granted += 1
            assert sum(self.held.values()) <= self.total, f"{self.held} is more than {self.total}"
        try:
            yield
        finally:
            with self.lock:
                del self.held[token]

    def tokens(self) -> set[str]:
        with self.lock:
            return set(self.held)


class Load:
    """Clients that ask, hold for a moment and end, until they are told to stop; the first error stops all."""

    def __init__(self, daemon: Daemon, total: int) -> None:
        self.books = Books(total)
        self.errors: list[BaseException] = []
        self.over = threading.Event()
        self._daemon = daemon
        self._size = total // PORTIONS // MIB * MIB
        self._chance = random.Random(5)
        lives: list[Callable[[str], None]] = [*[self._container] * CLIENTS, self._process]
        self._threads = [
            threading.Thread(target=self._run, args=(life, f"client-{number}"))
            for number, life in enumerate(lives)
        ]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.over.set()
        for thread in self._threads:
            thread.join()

    def _run(self, life: Callable[[str], None], name: str) -> None:
        while not self.over.is_set():
            try:
                life(name)
            except (RefusedError, OSError, wire.ProtocolError):
                time.sleep(0.01)  # it is full, or the daemon is gone: whoever asked has failed
            except BaseException as error:
                self.errors.append(error)
                self.over.set()

    def _container(self, name: str) -> None:
        """The same id each time, as `docker restart` has it."""
        token = self._daemon.create(f"GPU_MEMORY_LIMIT={self._size // MIB}Mi", id=name).token
        with Sleeper() as container:
            self._daemon.confirm(token, container)
            with self.books.holding(token, self._size):
                time.sleep(self._chance.uniform(0, 0.05))

    def _process(self, name: str) -> None:
        command = [sys.executable, "-S", "-E", "-c", EXEC, str(self._daemon.run_dir / "gpuportiond.sock")]
        with subprocess.Popen(
            [*command, f"{self._size // MIB}Mi"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as caller:
            assert caller.stdout is not None
            token = caller.stdout.readline().strip()
            if token:
                with self.books.holding(token, self._size):
                    time.sleep(self._chance.uniform(0, 0.05))
            caller.kill()


def places() -> Iterator[str]:
    """Every place in turn, and not always when it is come to for the first time."""
    chance = random.Random(7)
    while True:
        for place in (
            one for one in POINTS if not one.startswith("mig-")
        ):  # tests/daemon/test_mig*.py has those
            yield place if place in AT_START else f"{place}:{chance.randint(1, LATEST)}"


def run_until_it_dies(daemon: Daemon, place: str) -> bool:
    """False: the place was not come to, so it was killed where it was."""
    daemon.env[VARIABLE] = place
    process = daemon.process = daemon.spawn()
    del daemon.env[VARIABLE]
    try:
        process.wait(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        daemon.kill()
        return False
    assert process.returncode == -9, daemon.tail()
    return True


def check_that_all_are_there(daemon: Daemon, books: Books) -> None:
    """Who held before the question and still does after the answer, is in the answer."""
    before = books.tokens()
    active = {row["token"] for row in daemon.ps() if row["state"] == "active"}
    assert before & books.tokens() <= active


def test_killed_at_every_step_it_neither_sells_twice_nor_forgets(tmp_path: Path) -> None:
    """The last start finds the rest and gives it all back."""
    with Daemon(tmp_path, options=["--reservation-timeout", "5"]) as daemon:
        total = daemon.gpus()[0]["free"]
        missed: list[str] = []
        with Load(daemon, total) as load:
            for number, place in zip(range(KILLS), places(), strict=False):
                daemon.kill()
                if not run_until_it_dies(daemon, place):
                    missed.append(place)
                if number % 6 == 5:
                    daemon.start()
                    check_that_all_are_there(daemon, load.books)
                if load.over.is_set():
                    break
            daemon.kill()
            daemon.start()
            check_that_all_are_there(daemon, load.books)
        assert not load.errors, load.errors
        assert len(missed) <= KILLS // 5, missed
        assert load.books.granted > KILLS // 3, "the load came to nothing"
        daemon.until(lambda: not daemon.ps() and not daemon.folders())
        assert daemon.gpus()[0]["free"] == total
        assert f"{daemon.run_dir}/grants" not in Path("/proc/mounts").read_text()
        assert "a bug" not in daemon.log.read_text()
        assert "Traceback" not in daemon.log.read_text()
