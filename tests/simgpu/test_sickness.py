"""Simulated devices and their driver fall ill, and are well again, while a program uses them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from gpuportion.errors import GpuportionError
from gpuportion.simgpu import Behaviour, Sim, sickness
from tests.simgpu.conftest import Start

ASKED = """
import json, sys, pynvml as n
n.nvmlInit()
s = n.nvmlEventSetCreate()
for i in range(n.nvmlDeviceGetCount()):
    n.nvmlDeviceRegisterEvents(n.nvmlDeviceGetHandleByIndex(i), n.nvmlEventTypeXidCriticalError, s)
print("ready", flush=True)
for line in sys.stdin:
    try:
        answer = eval(line)
    except n.NVMLError as error:
        answer = error.value
    print(json.dumps(answer), flush=True)
"""
USED = "n.nvmlDeviceGetMemoryInfo(n.nvmlDeviceGetHandleByIndex(%d)).total > 0"
EVENT = (
    "(lambda e: [n.nvmlDeviceGetIndex(e.device), e.eventType, e.eventData])(n.nvmlEventSetWait_v2(s, 100))"
)
FIELD = "n.nvmlDeviceGetFieldValues(n.nvmlDeviceGetHandleByIndex(0), [n.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION])"
ACTION = f"(lambda f: [f.nvmlReturn, f.value.uiVal])({FIELD}[0])"
TIMEOUT = 10


class Client:
    """A program that keeps its NVML session."""

    def __init__(self, sim: Sim) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", ASKED],
            env={**os.environ, **sim.env()},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None and self.process.stdout.readline() == "ready\n"

    def say(self, text: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()

    def hear(self) -> Any:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def ask(self, text: str) -> Any:
        self.say(text)
        return self.hear()


@pytest.fixture
def two(start: Start) -> Sim:
    return start("a100-80gb:2")


@pytest.fixture
def client(two: Sim) -> Iterator[Client]:
    made = Client(two)
    yield made
    made.process.communicate()


def test_a_board_that_is_lost_answers_its_error(two: Sim, client: Client) -> None:
    """The other one is as before; after a reset it is well."""
    sickness.error(two.state, 0)
    assert (client.ask(USED % 0), client.ask(USED % 1)) == (sickness.LOST, True)
    sickness.recover(two.state, 0)
    assert client.ask(USED % 0) is True


def test_an_xid_wakes_who_waits_for_it(two: Sim, client: Client) -> None:
    """Once for each; with what is to be done about the board, if the driver tells."""
    assert client.ask(EVENT) == TIMEOUT and client.ask(ACTION) == [0, 0]
    client.say(EVENT.replace("100", "20000"))
    sickness.raise_xid(two.state, 1, 48)
    assert client.hear() == [1, 8, 48]
    assert client.ask(EVENT) == TIMEOUT
    sickness.raise_xid(two.state, 0, 79, action=1)
    assert client.ask(EVENT) == [0, 8, 79] and client.ask(ACTION) == [0, 1]
    sickness.raise_xid(two.state, 0, 79, action=sickness.UNTOLD)
    assert client.ask(ACTION)[0] == 3


def test_a_session_ends_with_its_driver(two: Sim, client: Client) -> None:
    """After a reload it answers nothing; a new one does. While no driver is loaded there is none."""
    sickness.reload_driver(two.state)
    assert client.ask(USED % 0) == 999
    client.ask("n.nvmlShutdown()")
    sickness.driver_error(two.state)
    assert client.ask("n.nvmlInit()") == sickness.DRIVER_NOT_LOADED
    sickness.driver_error(two.state, 0)
    assert client.ask("n.nvmlInit()") is None and client.ask(USED % 0) is True


def test_a_library_of_another_driver_serves_nobody(two: Sim, client: Client) -> None:
    """Until it is loaded anew."""
    sickness.reload_driver(two.state, "610.43.99")
    client.ask("n.nvmlShutdown()")
    assert client.ask("n.nvmlInit()") == 18
    later = Client(two)
    assert later.ask("n.nvmlSystemGetDriverVersion()") == "610.43.99"
    later.process.communicate()


def test_calls_hang_until_it_is_over(two: Sim, client: Client) -> None:
    """Every one, in a session or not."""
    sickness.hang(two.state)
    client.say(USED % 0)
    time.sleep(0.2)
    sickness.hang(two.state, False)
    assert client.hear() is True


@pytest.mark.parametrize(("device", "number"), [(2, 15), (0, -1), (0, 100_000)])
def test_what_cannot_be_is_refused(two: Sim, device: int, number: int) -> None:
    """No such board, no such number."""
    with pytest.raises(GpuportionError):
        sickness.error(two.state, device, number)


def test_any_question_can_be_told_to_fail(start: Start) -> None:
    """By its exported name, at the calls that are named, whatever it is about."""
    process_list = "nvmlDeviceGetComputeRunningProcesses_v3"
    rules = (
        f"{process_list}@2-3=999,nvmlDeviceGetMinorNumber=15,nvmlDeviceGetUUID@1=6,nvmlDeviceGetMigMode@1=3"
    )
    made = Client(start(behaviour=Behaviour(faults=rules)))
    device = "n.nvmlDeviceGetHandleByIndex(0)"
    listed = [made.ask(f"n.{process_list}({device})") for _ in range(4)]
    assert listed == [[], 999, 999, []]
    assert [made.ask(f"n.nvmlDeviceGetMinorNumber({device})") for _ in range(2)] == [15, 15]
    assert made.ask(f"n.nvmlDeviceGetUUID({device})") == 6
    assert str(made.ask(f"n.nvmlDeviceGetUUID({device})")).startswith("GPU-")
    assert (made.ask(f"n.nvmlDeviceGetMigMode({device})"), made.ask(USED % 0)) == (3, True)
    made.process.communicate()
