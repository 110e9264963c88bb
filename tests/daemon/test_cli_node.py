"""The command line against a real daemon on simulated GPUs, with a real CUDA client where one is needed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.support.daemon import GB, Daemon, Sleeper
from tests.support.session import CudaSession

MB = 10**6
CLIENT = str(Path(__file__).parents[1] / "support/cuda_session.py")
WITHOUT_MOUNTS = ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin", "--"]
GPUPORTION = [sys.executable, "-m", "gpuportion"]
Gpuportion = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def two_gpus(tmp_path: Path) -> Iterator[Daemon]:
    with Daemon(tmp_path, sim="a100-80gb:2") as running:
        yield running


@pytest.fixture
def env(two_gpus: Daemon) -> dict[str, str]:
    """A simulated driver is told where its devices are; a real one needs nothing."""
    return {**two_gpus.env, "GPUPORTION_SIM_STATE": str(two_gpus.run_dir / "sim/state")}


@pytest.fixture
def gpuportion(env: dict[str, str]) -> Gpuportion:
    def call(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*GPUPORTION, *words], env=env, capture_output=True, text=True, check=False, timeout=60
        )

    return call


@pytest.mark.clients
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: mounts, and capabilities to drop")
@pytest.mark.parametrize("before", [[], WITHOUT_MOUNTS], ids=["mounted", "by-environment"])
def test_exec_holds_a_real_client_to_its_portion(
    two_gpus: Daemon, env: dict[str, str], before: list[str]
) -> None:
    """600 MB of 1 GB are given, 600 MB more are refused; the GPU has the portion's size; ps has the process."""
    command = [*before, *GPUPORTION, "exec", "--gpu-memory=1G", "--", sys.executable, CLIENT]
    with CudaSession(command, env=env) as client:
        assert client.opened == "CUDA_SUCCESS"
        assert client.alloc(600 * MB) == "CUDA_SUCCESS"
        assert client.alloc(600 * MB) == "CUDA_ERROR_OUT_OF_MEMORY"
        total = GB - GB % (1 << 20)
        assert client.ask("info")["device_total"] == client.ask("nvml")["total"] == total
        (row,) = two_gpus.ps()
        assert (row["kind"], row["pids"], row["gpus"][0]["limit"]) == ("process", [client.pid], total)
        said = client.end()
    assert "GP201" in said
    two_gpus.until(lambda: not two_gpus.ps())


@pytest.mark.clients
def test_exec_shows_the_granted_gpus_first_to_last(env: dict[str, str]) -> None:
    """A program takes device 0; it must be the one that was granted, not one where it may take nothing."""
    command = [*GPUPORTION, "exec", "--gpu-memory=1G", "--gpu-select=1", "--", sys.executable, CLIENT]
    with CudaSession(command, env={**env, "CUDA_VISIBLE_DEVICES": "0"}) as client:
        assert client.opened == "CUDA_SUCCESS"
        assert client.alloc(600 * MB) == "CUDA_SUCCESS"


@pytest.mark.clients
def test_what_a_command_started_keeps_the_portion_after_it(two_gpus: Daemon, env: dict[str, str]) -> None:
    """A shell starts the client and is killed: the client is still held, and the grant lives as long as it."""
    script = 'exec 3<&0; "$0" "$1" <&3 & wait'
    command = [*GPUPORTION, "exec", "--gpu-memory=1G", "--", "sh", "-c", script, sys.executable, CLIENT]
    with CudaSession(command, env=env) as client:
        assert client.alloc(600 * MB) == "CUDA_SUCCESS"
        os.kill(client.process.pid, signal.SIGKILL)
        assert client.process.wait(timeout=60) == -signal.SIGKILL and client.pid != client.process.pid
        assert client.alloc(600 * MB) == "CUDA_ERROR_OUT_OF_MEMORY"
        (row,) = two_gpus.ps()
        assert row["gpus"][0]["used"] > 600 * MB
        client.end()
    two_gpus.until(lambda: not two_gpus.ps())


def test_tables_and_json_tell_of_the_same_grants(two_gpus: Daemon, gpuportion: Gpuportion) -> None:
    """ps and node, each in both forms."""
    granted = two_gpus.create("GPU_MEMORY_LIMIT=4G,8G", id="c" * 64)
    with Sleeper() as container:
        two_gpus.confirm(granted.token, container)
        heading, *lines = gpuportion("ps").stdout.splitlines()
        assert heading.split() == [
            "CONTAINER", "NAME", "USER", "GPU", "GRANT", "USED", "PEAK", "COMPUTE", "ENFORCED-BY", "REFUSALS", "AGE",
        ]  # fmt: skip
        assert [line.split()[0] for line in lines] == ["c" * 12] * 2
        assert "4.00 GB (3814 MiB)" in lines[0] and "8.00 GB (7629 MiB)" in lines[1]
        (grant,) = json.loads(gpuportion("ps", "--json").stdout)["grants"]
        assert [gpu["limit"] >> 20 for gpu in grant["gpus"]] == [3814, 7629]

        heading, *lines = gpuportion("node").stdout.splitlines()
        assert heading.split() == [
            "GPU", "MODEL", "ROLE", "TOTAL", "RESERVED", "GRANTED", "FREE", "USED", "MIG", "HEALTH",
        ]  # fmt: skip
        assert [" 4.00 GB " in lines[0], " 8.00 GB " in lines[1]] == [True, True]
        assert gpuportion("node", "show").stdout.splitlines() == [heading, *lines]
        assert json.loads(gpuportion("node", "--json").stdout)["gpus"] == two_gpus.gpus()


def test_doctor_finds_the_daemon_its_gpus_and_their_specification(gpuportion: Gpuportion) -> None:
    """Whatever else this machine lacks."""
    findings = {one["check"]: one for one in json.loads(gpuportion("doctor", "--json").stdout)}
    for check in ("kernel", "build", "cgroup", "nvml", "cdi", "daemon"):
        assert findings[check]["ok"], findings[check]
    assert "2 GPUs" in findings["nvml"]["text"]
    bad = [one for one in findings.values() if not one["ok"]]
    done = gpuportion("doctor")
    assert done.returncode == (1 if bad else 0)
    assert sum(line.startswith("problem") for line in done.stdout.splitlines()) == len(bad)


def test_the_simulation_of_a_daemon_can_be_looked_at(two_gpus: Daemon, gpuportion: Gpuportion) -> None:
    """`gpuportion sim status`, where --directory says."""
    folder = str(two_gpus.run_dir / "sim")
    heading, *lines = gpuportion("sim", "status", "--directory", folder).stdout.splitlines()
    assert heading.split() == ["GPU", "BOARD", "MODEL", "TOTAL", "RESERVED", "USED", "PROCESSES", "MIG"]
    assert [line.split()[1] for line in lines] == ["a100-80gb"] * 2
    shown = json.loads(gpuportion("sim", "status", "--json", "--directory", folder).stdout)
    assert [gpu["uuid"] for gpu in shown["gpus"]] == [gpu["uuid"] for gpu in two_gpus.gpus()]
