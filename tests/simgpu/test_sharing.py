"""One device, many processes: who gets the last memory, and what the dead leave behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from gpuportion.simgpu import Sim, state
from gpuportion.simgpu.costs import DEFAULTS
from tests.simgpu.conftest import Start
from tests.simgpu.driver import MIB, NOT_INITIALIZED, OUT, OUT_OF_MEMORY, SUCCESS, Driver, driver
from tests.support.native import ROOT

CONTEXT = DEFAULTS["context"]
GIB = 1024 * MIB


def test_a_killed_process_gives_its_memory_back(sim: Sim) -> None:
    """At once for others' cuMemGetInfo, and for an allocation that needs the room."""
    with driver(sim) as other, driver(sim) as victim:
        other.open()
        victim.open().alloc(60 * GIB)
        free, _ = other.info()
        assert other.call("cuMemAlloc_v2", OUT, 30 * GIB)[0] == OUT_OF_MEMORY
        victim.kill()
        assert other.info()[0] == free + 60 * GIB + CONTEXT
        other.alloc(30 * GIB)
        assert state.used(sim.state) == CONTEXT + 30 * GIB


def test_a_forked_child_keeps_the_memory(sim: Sim) -> None:
    """It inherited the descriptor: the memory is free when it ends too. The driver itself is not for it."""
    with driver(sim) as other, driver(sim) as parent:
        other.open()
        parent.open().alloc(60 * GIB)
        child = parent.ask(fork=1)
        assert child["result"] == [NOT_INITIALIZED, NOT_INITIALIZED]
        parent.kill()
        assert state.used(sim.state) == 2 * CONTEXT + 60 * GIB
        assert other.call("cuMemAlloc_v2", OUT, 30 * GIB)[0] == OUT_OF_MEMORY
        os.kill(child["pid"], signal.SIGKILL)
        while state.used(sim.state) > CONTEXT:
            time.sleep(0.01)
        other.alloc(30 * GIB)


def test_of_two_that_race_for_the_last_memory_exactly_one_gets_it(sim: Sim) -> None:
    """Never both, never none."""
    with ExitStack() as stack:
        racers = [stack.enter_context(driver(sim)).open() for _ in range(4)]
        room = racers[0].info()[0] // (2 * MIB) * (2 * MIB)
        with ThreadPoolExecutor(len(racers)) as pool:
            for _ in range(50):
                results = list(pool.map(lambda racer: racer.call("cuMemAlloc_v2", OUT, room), racers))
                assert sorted(result for result, _ in results) == [SUCCESS] + [OUT_OF_MEMORY] * 3
                assert state.used(sim.state) == 4 * CONTEXT + room
                winner = [result for result, _ in results].index(SUCCESS)
                racers[winner].free(results[winner][1])


@pytest.fixture(scope="session")
def storm(libraries: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A process that allocates and frees as fast as it can, of several sizes."""
    program = tmp_path_factory.mktemp("storm") / "storm"
    source = Path(__file__).with_name("storm.c")
    command = [
        "gcc",
        "-O2",
        "-Wall",
        "-Werror",
        "-o",
        str(program),
        str(source),
        f"-L{libraries}",
        "-l:libcuda.so.1",
    ]
    subprocess.run(command, check=True)
    return program


class Storm:
    """Storm processes, all of them ended with the test."""

    def __init__(self, program: Path, sim: Sim) -> None:
        self.command = [str(program)]
        self.env = {**os.environ, **sim.env()}
        self.running: list[subprocess.Popen[bytes]] = []

    def add(self) -> subprocess.Popen[bytes]:
        self.running.append(subprocess.Popen(self.command, env=self.env))
        return self.running[-1]

    def kill_oldest(self) -> None:
        process = self.running.pop(0)
        assert process.poll() is None, "the storm ended by itself"
        process.kill()
        process.wait()

    def __enter__(self) -> Storm:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.running:
            process.kill()
            process.wait()


def test_a_storm_of_kills_loses_and_creates_no_memory(start: Start, storm: Path) -> None:
    """Processes killed at any instruction: afterwards all of the device can be taken, to the last granule."""
    kills = 1000 if os.environ.get("GPUPORTION_TEST_LONG") else 150
    sim = start("t4-16gb")
    capacity = sim.devices[0].total - sim.devices[0].reserved
    with Storm(storm, sim) as processes:
        for _ in range(4):
            processes.add()
        for i in range(kills):
            time.sleep(0.002 + (i % 7) * 0.001)
            assert state.charged(sim.state) <= capacity
            processes.kill_oldest()
            processes.add()
    assert state.used(sim.state) == 0
    with driver(sim) as cuda:
        cuda.open()
        assert cuda.info() == (capacity - CONTEXT, capacity)
        cuda.alloc((capacity - CONTEXT) // (2 * MIB) * (2 * MIB))


def test_a_change_survives_a_death_after_any_instruction(sim: Sim, tmp_path: Path) -> None:
    """And an interruption by another process's changes: the total stays the sum of what is held."""
    program = tmp_path / "steps"
    sources = [Path(__file__).with_name("steps.c"), *(ROOT / "simgpu" / "state").glob("*.c")]
    flags = ["-std=gnu11", "-O2", "-Wl,-z,now", "-D_GNU_SOURCE", "-Wall", "-Werror", f"-I{ROOT}/simgpu/state"]
    subprocess.run(["gcc", *flags, "-o", program, *sources], check=True)
    env = {**os.environ, **sim.env()}
    done = subprocess.run([program], env=env, capture_output=True, text=True, check=False)
    if done.returncode == 77:
        pytest.skip("ptrace is refused here")
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 100


def test_a_stopped_process_stops_nobody_else(start: Start, storm: Path) -> None:
    """Stopped at any instruction, however unlucky, it holds nothing that another one waits for."""
    sim = start("h200-141gb")
    with driver(sim) as cuda, Storm(storm, sim) as processes:
        cuda.open()
        for _ in range(12):
            process = processes.add()
            while not any(holder.pid == process.pid for holder in state.holders(sim.state)):
                assert process.poll() is None
                time.sleep(0.001)
            process.send_signal(signal.SIGSTOP)
            cuda.free(cuda.alloc(4 * MIB))


def test_exported_memory_lives_with_its_last_holder(sim: Sim) -> None:
    """Imported by another process it stays when the exporter is killed, and is charged once all the time."""
    ours, theirs = socket.socketpair()
    with (
        ours,
        theirs,
        Driver(sim.env(), fds=[ours.fileno()]) as exporter,
        Driver(sim.env(), fds=[theirs.fileno()]) as importer,
    ):
        exporter.open()
        importer.open()
        handle = exporter.create(20 * MIB, exportable=True)
        assert state.used(sim.state) == 2 * CONTEXT + 20 * MIB
        fd = exporter.do("cuMemExportToShareableHandle", OUT, handle, 1, 0)
        exporter.ask(send=fd, to=ours.fileno())
        received = importer.ask(receive=theirs.fileno())["fd"]
        imported = importer.do("cuMemImportFromShareableHandle", OUT, received, 1)
        at = importer.map(imported, 20 * MIB)
        exporter.do("cuMemsetD8_v2", exporter.map(handle, 20 * MIB), 7, 20 * MIB)
        back = importer.do("cuMemHostAlloc", OUT, 64, 0)
        importer.do("cuMemcpyDtoH_v2", back, at, 1)
        assert state.used(sim.state) == 2 * CONTEXT + 20 * MIB
        exporter.kill()
        assert state.used(sim.state) == CONTEXT + 20 * MIB
        importer.do("cuMemRelease", imported)
        assert state.used(sim.state) == CONTEXT + 20 * MIB
        importer.do("cuMemUnmap", at, 20 * MIB)
        assert state.used(sim.state) == CONTEXT


def test_the_state_stays_small(sim: Sim) -> None:
    """It is one file of a fixed size, nearly all of it a hole: accounts that nobody uses have no pages."""
    with driver(sim) as cuda:
        cuda.open().alloc(MIB)
        assert Path(sim.state).stat().st_size == state.SIZE < 20 * MIB
        assert Path(sim.state).stat().st_blocks * 512 < 2 * MIB
