"""What the daemon costs while nothing happens: 200 containers live on 16 simulated GPUs, each with a process that holds
memory of its GPU, in a cgroup of its own.

    idle_cpu_percent   CPU time of all the daemon's threads and of its editor, user and system, in per cent of one core
    rss_mb             what of both is in memory, MB; shared libraries are counted twice

Their processes use the simulated driver directly, as programs beside the library do; to the daemon it is the same. What
the simulated NVML itself computes, in the daemon's process, counts. Needs root, and cgroups that it may make.
"""

from __future__ import annotations

import os
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from tests.native.capped import Client
from tests.support.daemon import MIB, Cgroup, Daemon

CONTAINERS: Final = 200
GPUS: Final = 16
SETTLING: Final = 75
"""Seconds for what the daemon has to learn of new processes, and until the time of their reservations is over, when it
looks at each once more."""

SECONDS: Final = 30
SIZE: Final = 1024 * MIB
HELD: Final = 64 * MIB


def measure(seconds: int) -> tuple[float, float]:
    """(per cent of a core, MB)."""
    with (
        tempfile.TemporaryDirectory(prefix="gpuportion-bench-", dir="/dev/shm") as folder,
        Daemon(Path(folder), sim=f"a100-80gb:{GPUS}") as daemon,
        ExitStack() as living,
    ):
        tokens = [
            daemon.create(f"GPU_MEMORY_LIMIT={SIZE // MIB}Mi", id=f"idle-{n}").token
            for n in range(CONTAINERS)
        ]
        gpus = {row["token"]: str(row["gpus"][0]["uuid"]) for row in daemon.ps()}
        for number, token in enumerate(tokens):
            _live(daemon, living, token, gpus[token], f"gpuportion-bench-{os.getpid()}/{number}")
        time.sleep(SETTLING)
        before, began = _cpu(daemon.pid), time.monotonic()
        time.sleep(seconds)
        spent = (_cpu(daemon.pid) - before) / (time.monotonic() - began)
        return spent * 100, _resident(daemon.pid)


def _live(daemon: Daemon, living: ExitStack, token: str, gpu: str, name: str) -> None:
    """A process of this grant, until `living` ends."""
    driver = {
        "GPUPORTION_SIM_STATE": f"{daemon.run_dir}/sim/state",
        "LD_LIBRARY_PATH": f"{daemon.run_dir}/sim/lib",
    }
    cgroup = Cgroup(name)
    living.callback(_remove, cgroup)
    client = Client({**os.environ, **driver, "CUDA_VISIBLE_DEVICES": gpu})
    living.callback(client.kill)
    cgroup.add(client.process.pid)
    pidfd = os.pidfd_open(client.process.pid)
    try:
        daemon.ask("confirm", token=token, pid=client.process.pid, fds=(pidfd,))
    finally:
        os.close(pidfd)
    if client.begin()(f"linear {HELD}")[0]:
        raise SystemExit(f"no memory for {name}")


def _remove(cgroup: Cgroup) -> None:
    cgroup.remove()
    for folder in cgroup.folders:
        if not any(each.is_dir() for each in folder.parent.iterdir()):
            folder.parent.rmdir()


def _cpu(pid: int) -> float:
    """Seconds that the threads of the daemon and of its children have run."""
    threads = [thread for each in (pid, *_children(pid)) for thread in Path(f"/proc/{each}/task").iterdir()]
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9


def _resident(pid: int) -> float:
    lines = [
        line
        for each in (pid, *_children(pid))
        for line in Path(f"/proc/{each}/status").read_text().splitlines()
        if line.startswith("VmRSS:")
    ]
    return sum(int(line.split()[1]) for line in lines) * 1024 / 1e6


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
