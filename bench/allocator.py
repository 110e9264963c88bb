"""How many lives of grants a second the daemon manages, and how long a reserve takes under steady arrivals.

A real daemon process on simulated GPUs, on its real socket. The clients are C programs' threads (native/clients.c) with
the frames, the code and the descriptors of the launcher and the hook: a connection each, docker's own config.json, the
pidfd of a real process that is killed to end the container. The processes are started beforehand; nothing of the
daemon's work is left out, and the time runs until the last grant is released.

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
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).parents[1]))

import idle
from tests.support import native
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


class Load:
    """What clients ask of one daemon."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        config = json.loads(CONFIG.read_text())
        config["process"]["env"].append(f"GPU_MEMORY_LIMIT={SIZE // MIB}Mi")
        self._config = daemon.run_dir / "bench-config.json"
        self._config.write_text(json.dumps(config))
        self._program = native.built("bench_clients", "shim")

    def lives_per_second(self, lives: int, name: str = "life") -> float:
        """Full lives a second, all clients together, beside those that live already."""
        (seconds,) = self._ask("lives", name, lives, str(self._daemon.run_dir / "grants"))
        return lives / seconds

    def pings_per_second(self, count: int) -> float:
        (seconds,) = self._ask("pings", "", count)
        return count / seconds

    def creates(self, seconds: int) -> list[float]:
        """Milliseconds of each; its container's life follows and is not counted."""
        taken = self._ask("creates", "arrival", seconds * ARRIVALS, str(ARRIVALS))
        self._daemon.until(lambda: not self._daemon.ps())
        return taken

    def pings(self, seconds: int) -> list[float]:
        return self._ask("asks", "", seconds * ARRIVALS, str(ARRIVALS))

    def fill(self, container: Sleeper, count: int) -> None:
        """Until `count` grants live, all of one container."""
        for number in range(len(self._daemon.folders()), count):
            made = self._daemon.create(f"GPU_MEMORY_LIMIT={SIZE // MIB}Mi", id=f"lasting-{number}")
            self._daemon.ask("confirm", token=made.token, pid=container.pid, fds=(container.pidfd,))

    def _ask(self, what: str, name: str, count: int, *more: str) -> list[float]:
        command = [self._program, what, str(self._daemon.run_dir / "gpuportiond.sock"), str(self._config)]
        done = subprocess.run(
            [*command, name, str(count), str(CLIENTS), *more], stdout=subprocess.PIPE, text=True, check=False
        )
        if done.returncode:
            raise SystemExit(f"the clients of the bench ended with {done.returncode}")
        return [float(line) for line in done.stdout.split()]


def beside_many(folder: Path, lives: int, seconds: int) -> tuple[dict[int, float], dict[int, float]]:
    """Lives a second, and milliseconds of a ping while `ps` is answered, by how many grants live on beside."""
    rates, stalls = {}, {}
    with Daemon(folder, sim=f"a100-80gb:{IDLE_GPUS}") as daemon, Sleeper() as container:
        load = Load(daemon)
        load.lives_per_second(lives // 4, "warm")
        for count in sorted({*LIVE, *LISTED}):
            load.fill(container, count)
            if count in LIVE:
                rates[count] = load.lives_per_second(lives, f"beside-{count}")
            if count in LISTED:
                with _asking_ps(daemon):
                    stalls[count] = p99(load.pings(seconds))
    return rates, stalls


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
    os.environ.setdefault("GPUPORTION_TEST_BUILD", str(native.ROOT / "build" / "bench"))
    with (
        tempfile.TemporaryDirectory(prefix="gpuportion-bench-", dir="/dev/shm") as folder,
        Daemon(Path(folder), sim=f"a100-80gb:{GPUS}") as daemon,
    ):
        load = Load(daemon)
        load.lives_per_second(options.lives // 10, "warm")
        rate = load.lives_per_second(options.lives)
        print(f"{options.lives} lives of grants by {CLIENTS} clients: {rate:.0f} a second")
        floor = load.pings_per_second(options.lives * 2)
        print(f"pings by as many clients: {floor:.0f} a second")
        ping = load.pings(options.seconds)
        create = load.creates(options.seconds)
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
