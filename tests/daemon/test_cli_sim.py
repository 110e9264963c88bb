"""`gpuportion sim start|status|stop` and a client on what it makes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.session import CudaSession

CLIENT = str(Path(__file__).parents[1] / "support/cuda_session.py")
Sim = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def sim(tmp_path: Path) -> Sim:
    """The command, with its folders below tmp_path; the status is not checked."""

    def call(action: str, *words: str, cdi: bool = True) -> subprocess.CompletedProcess[str]:
        where = ["--directory", str(tmp_path / "sim"), *(["--cdi-dir", str(tmp_path / "cdi")] if cdi else [])]
        command = [sys.executable, "-m", "gpuportion", "sim", action, *where, *words]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    return call


@pytest.mark.clients
def test_what_start_prints_makes_a_client_find_the_gpus(sim: Sim, tmp_path: Path) -> None:
    """As `eval "$(gpuportion sim start ...)"` would; status has the client, stop takes all away."""
    done = sim("start", "--gpus", "t4-16gb", "--random-costs", "7")
    assert done.returncode == 0, done.stderr
    lines = [line.removeprefix("export ").split("=", 1) for line in done.stdout.splitlines()]
    with CudaSession(
        [sys.executable, CLIENT], env={**os.environ, **{name: value for name, value in lines}}
    ) as client:
        assert client.alloc(10**9) == "CUDA_SUCCESS"
        (gpu,) = json.loads(sim("status", "--json", cdi=False).stdout)["gpus"]
        assert gpu["board"] == "t4-16gb" and gpu["used"] >= 10**9
        assert [process["pid"] for process in gpu["processes"]] == [client.pid]
        refused = sim("start", "--gpus", "t4-16gb")
        assert refused.returncode == 1 and "in use" in refused.stderr
    assert list((tmp_path / "cdi").iterdir())
    assert sim("stop").returncode == 0
    assert not list((tmp_path / "cdi").iterdir()) and not (tmp_path / "sim").exists()


def test_a_board_that_is_not_known_is_said_with_those_that_are(sim: Sim) -> None:
    """Nothing is made."""
    done = sim("start", "--gpus", "voodoo2")
    assert done.returncode in (1, 2)
    assert "voodoo2" in done.stderr and "a100-80gb" in done.stderr


def test_a_board_is_refused_by_the_option_that_named_it() -> None:
    """`daemon --sim` and GPUPORTION_SIM are not called --gpus."""
    command = [sys.executable, "-m", "gpuportion", "daemon"]
    for words, env, said in (
        (["--sim", "voodoo2"], {}, "--sim"),
        ([], {"GPUPORTION_SIM": "voodoo2"}, "GPUPORTION_SIM"),
    ):
        done = subprocess.run(
            [*command, *words],
            env={**os.environ, **env},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert (done.returncode, done.stderr.split("=")[0]) == (2, f"GP107 {said}")


def test_the_status_of_nothing_is_a_refusal(sim: Sim) -> None:
    """With how to start one."""
    done = sim("status", cdi=False)
    assert done.returncode == 1
    assert "gpuportion sim start" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: MIG is changed by root alone")
def test_the_command_resets_and_reboots(sim: Sim, tmp_path: Path) -> None:
    """MIG mode as it is now, and MIG devices, in the status; --gpu must be one that is there."""
    assert sim("start", "--gpus", "h100-80gb", "--mig", "--driver", "550.54.14").returncode == 0
    assert sim("status", cdi=False).stdout.splitlines()[1].split()[-1] == "on"
    assert sim("refresh").returncode == 0
    assert sim("reset", "--gpu", "0", cdi=False).returncode == 0
    refused = sim("reset", "--gpu", "1", cdi=False)
    assert refused.returncode == 2 and "0 to 0" in refused.stderr
    assert sim("reboot", cdi=False).returncode == 0
    (gpu,) = json.loads(sim("status", "--json", cdi=False).stdout)["gpus"]
    assert (gpu["mig"], gpu["mig_pending"], gpu["mig_devices"]) == (False, False, [])
    assert sim("start", "--gpus", "t4-16gb", "--driver", "new").returncode == 2
