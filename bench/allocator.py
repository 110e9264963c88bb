"""How many lives of grants a second the daemon manages, and how long a reserve takes under steady arrivals.

A real daemon process on simulated GPUs, on its real socket, with requests as the launcher and the hook make them:
a connection each, docker's own config.json, the pidfd of a real process that is killed to end the container. The
processes are started beforehand and reaped afterwards, so that the clients do not starve the daemon of the CPU;
nothing of the daemon's work is left out, and the time runs until the last grant is released.

    grants_per_s   create, confirm, end, release; 32 clients at once
    pings_per_s    of the same clients, with nothing done: a life takes two questions, and can't be faster than those
    p99_ms         a create when 100 arrive a second, whether or not earlier ones were answered; from the moment when it
                   came, waiting for a free client of the 32 included, to its answer
    ping_ms, ping_p99_ms   the same connection with nothing done: what the socket and Python take by themselves
    grants_per_s_10_live, grants_per_s_2000_live    as the first, on 16 GPUs beside so many that live on
    ps_stall_ms_500_live, ps_stall_ms_2000_live     the p99 of pings while `ps` is asked beside so many, without a pause
    idle_cpu_percent, rss_mb                        beside 200 that live, hold memory and do nothing (idle.py)

The last line is one JSON object. The ledgers' mounts need root.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import os
import queue
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).parents[1]))

import idle
from tests.support.daemon import CONFIG, MIB, Daemon, Sleeper

from gpuportion import wire

CLIENTS: Final = 32
LIVES: Final = 3000
ARRIVALS: Final = 100
SECONDS: Final = 10
GPUS: Final = 8
SIZE: Final = 512 * MIB
IDLE_GPUS: Final = 16
LIVE: Final = (10, 2000)
LISTED: Final = (500, 2000)


class Containers:
    """Processes that stand for containers: started at once, taken one by one, ended by a signal."""

    def __init__(self, count: int) -> None:
        self._ready: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()
        self._all = [subprocess.Popen(["sleep", "3600"]) for _ in range(count)]
        for process in self._all:
            self._ready.put(process)

    def take(self) -> tuple[int, int]:
        process = self._ready.get_nowait()
        return process.pid, os.pidfd_open(process.pid)

    def end(self) -> None:
        for process in self._all:
            process.kill()
            process.wait()


class Client:
    """What the launcher and the hook send, made ready as they have it when they ask."""

    def __init__(self, daemon: Daemon) -> None:
        self._path = str(daemon.run_dir / "gpuportiond.sock")
        config = json.loads(CONFIG.read_text())
        config["process"]["env"].append(f"GPU_MEMORY_LIMIT={SIZE // MIB}Mi")
        self._config = json.dumps(config).encode()

    def ask(self, head: dict[str, object], body: bytes = b"", fds: tuple[int, ...] = ()) -> wire.Message:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.connect(self._path)
            wire.send(sock, wire.Message({"v": 1, **head}, body, wire.REQUEST, fds))
            answer = wire.receive(sock)
        if answer.status != wire.OK:
            raise SystemExit(f"the daemon refused: {answer.body.decode()}")
        return answer

    def create(self, id: str) -> str:
        head: dict[str, object] = {"op": "create", "verb": "create", "root": "/run/bench", "id": id}
        answer = self.ask({**head, "bundle": "/bundle", "preload_bytes": 0}, self._config)
        return str(answer.head["token"])

    def confirm_and_end(self, token: str, containers: Containers) -> None:
        pid, pidfd = containers.take()
        try:
            self.ask({"op": "confirm", "token": token, "pid": pid}, fds=(pidfd,))
            os.kill(pid, 9)
        finally:
            os.close(pidfd)


def lives_per_second(daemon: Daemon, lives: int, name: str = "life") -> float:
    """Full lives a second, all clients together, beside those that live already."""
    client = Client(daemon)
    beside = len(daemon.folders())
    containers = Containers(lives)

    def live(number: int) -> None:
        client.confirm_and_end(client.create(f"{name}-{number}"), containers)

    began = time.perf_counter()
    _all_at_once(live, lives)
    while len(daemon.folders()) > beside:  # asked of the file system: the question costs the daemon nothing
        time.sleep(0.001)
    took = time.perf_counter() - began
    containers.end()
    return lives / took


def pings_per_second(daemon: Daemon, count: int) -> float:
    client = Client(daemon)
    began = time.perf_counter()
    _all_at_once(lambda _: client.ask({"op": "ping"}), count)
    return count / (time.perf_counter() - began)


def _all_at_once(job: Callable[[int], object], count: int) -> None:
    """Each number below `count` once, by CLIENTS threads."""
    numbers = iter(range(count))
    lock = threading.Lock()

    def work() -> None:
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            job(number)

    threads = [threading.Thread(target=work) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def beside_many(folder: Path, lives: int, seconds: int) -> tuple[dict[int, float], dict[int, float]]:
    """Lives a second, and milliseconds of a ping while `ps` is answered, by how many grants live on beside."""
    rates, stalls = {}, {}
    with Daemon(folder, sim=f"a100-80gb:{IDLE_GPUS}") as daemon, Sleeper() as container:
        client = Client(daemon)
        lives_per_second(daemon, lives // 4, "warm")
        for count in sorted({*LIVE, *LISTED}):
            _fill(daemon, client, container, count)
            if count in LIVE:
                rates[count] = lives_per_second(daemon, lives, f"beside-{count}")
            if count in LISTED:
                with _asking_ps(daemon):
                    stalls[count] = p99(pings(daemon, seconds))
    return rates, stalls


def _fill(daemon: Daemon, client: Client, container: Sleeper, count: int) -> None:
    for number in range(len(daemon.folders()), count):
        token = client.create(f"lasting-{number}")
        client.ask({"op": "confirm", "token": token, "pid": container.pid}, fds=(container.pidfd,))


@contextmanager
def _asking_ps(daemon: Daemon) -> Iterator[None]:
    """Somebody who asks `ps` again and again, and doesn't look at the answers: that would take this process's time."""
    stop = threading.Event()
    room = bytearray(1 << 20)

    def ask() -> None:
        while not stop.is_set():
            with daemon.connect() as sock:
                wire.send(sock, wire.Message({"v": 1, "op": "ps"}, b"", wire.REQUEST))
                status, *lengths = wire.sizes(sock.recv(wire.HEADER.size, socket.MSG_WAITALL))
                if status != wire.OK:
                    raise SystemExit("the daemon refused to list its grants")
                left = sum(lengths)
                while left:
                    left -= sock.recv_into(room, min(left, len(room)))

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield
    finally:
        stop.set()
        asking.join()


class Arrivals:
    """Clients that do one job for each arrival, without an arrival waiting for the one before."""

    def __init__(self, job: Callable[[int], object]) -> None:
        self.taken: list[float] = []
        """Milliseconds from the moment when each came. When the bench itself is late to send one, it comes later."""
        self._job = job
        self._came: queue.SimpleQueue[tuple[float, int] | None] = queue.SimpleQueue()

    def run(self, seconds: int) -> None:
        threads = [threading.Thread(target=self._work) for _ in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for number in _evenly(seconds):
            self._came.put((time.perf_counter(), number))
        for _ in threads:
            self._came.put(None)
        for thread in threads:
            thread.join()

    def _work(self) -> None:
        for came, number in iter(self._came.get, None):
            self._job(number)
            self.taken.append((time.perf_counter() - came) * 1e3)


def pings(daemon: Daemon, seconds: int) -> list[float]:
    client = Client(daemon)
    arrivals = Arrivals(lambda _: client.ask({"op": "ping"}))
    arrivals.run(seconds)
    return arrivals.taken


def creates(daemon: Daemon, seconds: int) -> list[float]:
    """Each create is followed by its container's life, which is done elsewhere and not counted."""
    client = Client(daemon)
    containers = Containers(seconds * ARRIVALS)
    lives = concurrent.futures.ThreadPoolExecutor(4)

    def create(number: int) -> None:
        token = client.create(f"arrival-{number}")
        lives.submit(client.confirm_and_end, token, containers)

    arrivals = Arrivals(create)
    arrivals.run(seconds)
    lives.shutdown()
    daemon.until(lambda: not daemon.ps())
    containers.end()
    return arrivals.taken


def _evenly(seconds: int) -> Iterator[int]:
    began = time.perf_counter()
    for number in range(seconds * ARRIVALS):
        time.sleep(max(0.0, began + number / ARRIVALS - time.perf_counter()))
        yield number


def p99(values: list[float]) -> float:
    return statistics.quantiles(values, n=100)[98]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lives", type=int, default=LIVES, help="of the first measure (%(default)s)")
    parser.add_argument("--idle-seconds", type=int, default=idle.SECONDS, help="of the last (%(default)s)")
    parser.add_argument("--seconds", type=int, default=SECONDS, help="of the others (%(default)s)")
    options = parser.parse_args()
    sys.setswitchinterval(0.0005)  # the clients are threads of one process and must not wait for each other
    with (
        tempfile.TemporaryDirectory(prefix="gpuportion-bench-", dir="/dev/shm") as folder,
        Daemon(Path(folder), sim=f"a100-80gb:{GPUS}") as daemon,
    ):
        lives_per_second(daemon, options.lives // 10)  # warms up both sides
        rate = lives_per_second(daemon, options.lives)
        print(f"{options.lives} lives of grants by {CLIENTS} clients: {rate:.0f} a second")
        floor = pings_per_second(daemon, options.lives * 2)
        print(f"pings by as many clients: {floor:.0f} a second")
        ping = pings(daemon, options.seconds)
        create = creates(daemon, options.seconds)
        print(f"{ARRIVALS} a second: ping {statistics.median(ping):.2f} ms, p99 {p99(ping):.2f} ms")
        print(f"{ARRIVALS} a second: create {statistics.median(create):.2f} ms, p99 {p99(create):.2f} ms")
    with tempfile.TemporaryDirectory(prefix="gpuportion-bench-", dir="/dev/shm") as folder:
        rates, stalls = beside_many(Path(folder), options.lives // 3, options.seconds)
    for count, rate_beside in rates.items():
        print(f"on {IDLE_GPUS} GPUs, beside {count} live ones {rate_beside:.0f} lives a second")
    for count, stall in stalls.items():
        print(f"a ping while `ps` is asked beside {count} live ones: p99 {stall:.2f} ms")
    cpu, memory = idle.measure(options.idle_seconds)
    print(f"idle beside {idle.CONTAINERS} live ones: {cpu:.2f} % of a core, {memory:.1f} MB")
    result = {
        "grants_per_s": round(rate),
        "pings_per_s": round(floor),
        "p99_ms": round(p99(create), 3),
        "median_ms": round(statistics.median(create), 3),
        "ping_ms": round(statistics.median(ping), 3),
        "ping_p99_ms": round(p99(ping), 3),
        **{f"grants_per_s_{count}_live": round(each) for count, each in rates.items()},
        **{f"ps_stall_ms_{count}_live": round(each, 2) for count, each in stalls.items()},
        "idle_cpu_percent": round(cpu, 2),
        "rss_mb": round(memory, 1),
    }
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
