"""The clients of a storm (cuda_storm.c) on one grant of a simulated GPU, and both accounts of what they hold."""

from __future__ import annotations

import mmap
import os
import signal
import struct
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from gpuportion.allocator import pages
from gpuportion.simgpu import state
from tests.native.capped import Grant, Simulated
from tests.native.storm_record import Record
from tests.simgpu.driver import OUT, SUCCESS, Driver

FREE, ROUNDS, STORM, PROBE, OVER, WAIT, POOL = range(7)
WORDS: Final = [
    *("phase", "turn", "seed", "ready", "arrived", "place", "rounds", "round", "winners", "wrong"),
    *("grants", "refusals", "over", "strange", "forks", "slowest"),
]
MOST: Final = 512
"""Threads whose calls are counted."""
COUNTS: Final = ("grants", "refusals", "forks", "over", "strange", "round", "wrong")


class Page:
    """What the clients read and count."""

    def __init__(self, path: Path) -> None:
        self.path, size = path, 8 * (len(WORDS) + MOST)
        path.write_bytes(bytes(size))
        with path.open("r+b") as file:
            self.map = mmap.mmap(file.fileno(), size)

    def __getitem__(self, name: str) -> int:
        return int(struct.unpack_from("<Q", self.map, 8 * WORDS.index(name))[0])

    def __setitem__(self, name: str, value: int) -> None:
        struct.pack_into("<Q", self.map, 8 * WORDS.index(name), value)

    def calls(self, first: int, count: int) -> list[int]:
        """Of these threads, as they are numbered."""
        words = struct.unpack_from(f"<{MOST}Q", self.map, 8 * len(WORDS))
        return [words[number % MOST] for number in range(first, first + count)]

    def counted(self) -> dict[str, int]:
        return {name: self[name] for name in COUNTS}


class Client:
    """One process, of `threads` threads."""

    def __init__(self, command: list[str], env: dict[str, str], number: int, threads: int) -> None:
        self.process = subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL)
        self.first, self.threads = number * threads, threads

    @property
    def pid(self) -> int:
        return self.process.pid


class Storm:
    """The clients of a grant, and both accounts."""

    def __init__(self, folder: Path, program: Path, driver: Simulated, grant: Grant, limit: int) -> None:
        self.page = Page(folder / "page")
        self.driver, self.limit = driver, limit
        self.policy, self.ledger = str(grant.folder / "policy"), str(grant.folder / "ledger")
        self.env = grant.preload()
        self.program = str(program)
        self.clients: list[Client] = []
        self.started = 0

    @property
    def state(self) -> str:
        return self.driver.sim.state

    def record(self, name: str, seed: int) -> Record:
        self.page["seed"] = seed
        files = [self.policy, self.ledger, self.state, str(self.page.path)]
        return Record(name, seed, files, lambda: (self.page.counted(), *self.accounts()))

    def accounts(self) -> tuple[dict[int, int], pages.LedgerView]:
        """Bytes that the driver has given to each process, and what the ledger says."""
        return state.read(self.state)[0], pages.read_ledger(self.ledger)

    def counted(self) -> int:
        """Bytes of the GPU that the ledger has for the living: also of those on their way to the driver."""
        return pages.read_ledger(self.ledger).gpus[0].used

    def start(self, threads: int, *, look: bool) -> None:
        watched = [str(self.limit if look else 0), self.state, str(state.TOTAL_AT)]
        command = [self.program, str(self.page.path), str(self.started), str(threads), *watched]
        self.clients.append(Client(command, self.env, self.started, threads))
        self.started += 1

    def until(self, true: Callable[[], bool]) -> None:
        """Waits; for as long as the test may take."""
        while not true():
            self.all_live()
            time.sleep(0.01)

    def all_live(self) -> None:
        for client in self.clients:
            assert client.process.poll() is None, "a client ended by itself"

    def stop(self, which: Iterable[Client]) -> None:
        """At whatever instruction they are."""
        for client in which:
            client.process.send_signal(signal.SIGSTOP)
        for client in which:
            os.waitid(os.P_PID, client.pid, os.WSTOPPED | os.WNOWAIT)

    def go_on(self, which: Iterable[Client]) -> None:
        for client in which:
            client.process.send_signal(signal.SIGCONT)

    def kill(self, which: Iterable[Client]) -> int:
        """All of them at once. How many of them had allocated or been refused before."""
        self.all_live()
        for client in which:
            client.process.kill()
        for client in which:
            client.process.wait()
            self.clients.remove(client)
        return sum(any(self.page.calls(client.first, client.threads)) for client in which)

    def compare(self) -> int:
        """While all stand still: the GPU within the limit, and of each client no less counted than taken. Bytes
        that the GPU has given."""
        taken, told = self.accounts()
        assert sum(taken.values()) <= self.limit
        assert not told.damaged
        counted = {process.pid: process.used for process in told.gpus[0].processes}
        assert told.gpus[0].used <= self.limit
        for client in self.clients:
            assert taken.get(client.pid, 0) <= counted.get(client.pid, 0)
        return sum(taken.values())

    def end(self) -> None:
        self.page["phase"] = OVER
        for client in self.clients:
            client.process.kill()
        for client in self.clients:
            client.process.wait()
        self.clients.clear()

    def nothing_is_left(self) -> None:
        """Once the last child is gone, who comes next gets all of the grant, to the last page."""
        while pages.holders(self.ledger) or state.used(self.state):
            time.sleep(0.01)
        with Driver(self.env).open() as cuda:
            assert cuda.call("cuMemAlloc_v2", OUT, self.limit)[0] == SUCCESS
