"""`gpuportion exec` with a MIG instance: a real daemon, a real CUDA client, a simulated A100."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from tests.daemon.test_cli_node import CLIENT, GPUPORTION, MB, WITHOUT_MOUNTS
from tests.support.daemon import Sleeper
from tests.support.mig_daemon import FAULTS, MigDaemon
from tests.support.session import CudaSession

from gpuportion.simgpu import mig, sickness

pytestmark = [
    pytest.mark.clients,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: MIG is changed by root alone"),
]

SHELL = 'exec 3<&0; "$0" "$1" <&3 & wait'
"""Starts the client in the background, and would end with it."""


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[MigDaemon]:
    """One A100 with 40 GB."""
    with MigDaemon(tmp_path) as running:
        yield running


def env(daemon: MigDaemon, **more: str) -> dict[str, str]:
    return {**daemon.env, "GPUPORTION_SIM_STATE": daemon.there.state, **more}


def session(
    daemon: MigDaemon, *options: str, command: Sequence[str] = (), before: Sequence[str] = (), **more: str
) -> CudaSession:
    program = [*(command or ()), sys.executable, CLIENT]
    return CudaSession([*before, *GPUPORTION, "exec", *options, "--", *program], env=env(daemon, **more))


def run(daemon: MigDaemon, *words: str) -> subprocess.CompletedProcess[str]:
    command = [*GPUPORTION, "exec", *words]
    return subprocess.run(command, env=env(daemon), capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("before", [[], WITHOUT_MOUNTS], ids=["root", "without-mounts"])
def test_a_process_gets_its_instance_until_it_ends(daemon: MigDaemon, before: list[str]) -> None:
    """CUDA shows that instance as its only device, whatever the caller had set; the nodes are there; then it goes."""
    with session(daemon, "--mig=1g.5gb", before=before, CUDA_VISIBLE_DEVICES="7") as cuda:
        (one,) = daemon.instances()
        assert cuda.ask("mig")["cuda"] == ["NVIDIA A100-SXM4-40GB MIG 1g.5gb"]
        assert cuda.ask("info")["device_total"] == one["memory"] == 4864 << 20
        assert cuda.alloc(4000 * MB) == "CUDA_SUCCESS"
        assert cuda.alloc(1100 * MB) == "CUDA_ERROR_OUT_OF_MEMORY"
        (row,) = daemon.ps()
        assert (row["kind"], row["enforced_by"], row["pids"]) == ("process", "mig", [cuda.pid])
        assert row["mig"]["uuid"] == one["uuid"] and daemon.folders() == set()
        assert environment(cuda.pid)["CUDA_VISIBLE_DEVICES"] == one["uuid"]
        assert "LD_PRELOAD" not in environment(cuda.pid)
        (made,) = mig.devices(daemon.there.state)
        for minor in made.minors:
            node = os.stat(f"{daemon.there.directory}/dev/nvidia-caps/nvidia-cap{minor}")
            assert stat.S_ISCHR(node.st_mode) and node.st_rdev == os.makedev(mig.MAJOR, minor)
            assert stat.S_IMODE(node.st_mode) == 0o444
        said = cuda.end()
    assert "held by the MIG instance 1g.5gb" in said
    daemon.until(lambda: not daemon.ps() and not daemon.instances())
    assert daemon.shown() == []


def environment(pid: int) -> dict[str, str]:
    words = Path(f"/proc/{pid}/environ").read_text().split("\0")
    return dict(word.split("=", 1) for word in words if "=" in word)


def test_what_a_command_started_keeps_the_instance_after_it(daemon: MigDaemon) -> None:
    """As it keeps a fraction: the grant lives as long as somebody is on the instance, over a daemon's restart too."""
    with session(daemon, "--mig=2g.10gb", command=["sh", "-c", SHELL]) as cuda:
        assert cuda.alloc(600 * MB) == "CUDA_SUCCESS"
        os.kill(cuda.process.pid, signal.SIGKILL)
        assert cuda.process.wait(timeout=60) == -signal.SIGKILL and cuda.pid != cuda.process.pid
        daemon.kill()
        daemon.start()
        assert cuda.alloc(600 * MB) == "CUDA_SUCCESS"
        daemon.until(lambda: daemon.ps()[0]["gpus"][0]["used"] > 1200 * MB)
        assert daemon.states() == ["2g.10gb@4 in-use"]
        cuda.end()
    daemon.until(lambda: not daemon.ps() and daemon.shown() == [])


def test_nobody_gets_an_instance_whose_uuid_others_may_know(daemon: MigDaemon) -> None:
    """Of a process that has ended another may live on, which has its environment: a container gets another instance."""
    child = subprocess.Popen(
        [*GPUPORTION, "exec", "--mig=1g.5gb", "--", "sh", "-c", "sleep 3600 & echo $!; echo $CUDA_VISIBLE_DEVICES"],
        env=env(daemon), stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert child.stdout is not None
    left, uuid = int(child.stdout.readline()), child.stdout.readline().strip()
    try:
        assert child.wait(timeout=60) == 0 and uuid.startswith("MIG-")
        with Sleeper() as container:
            daemon.confirm(daemon.create("GPU_MIG=1g.5gb").token, container)
            assert daemon.ps()[-1]["mig"]["uuid"] != uuid
            daemon.until(lambda: [one["state"] for one in daemon.instances()] == ["in-use"])
        daemon.until(lambda: [one["state"] for one in daemon.instances()] == ["idle"])
    finally:
        os.kill(left, signal.SIGKILL)
        child.stdout.close()


def test_an_idle_instance_of_a_container_serves_a_process(daemon: MigDaemon) -> None:
    """At once, and it is the last that has it."""
    with Sleeper() as container:
        daemon.confirm(daemon.create("GPU_MIG=3g.20gb").token, container)
        (before,) = daemon.instances()
    daemon.until(lambda: daemon.states() == ["3g.20gb@4 idle"])
    done = run(daemon, "--mig=3g.20gb", "--quiet", "--", "sh", "-c", "echo $CUDA_VISIBLE_DEVICES")
    assert (done.stdout, done.stderr) == (f"{before['uuid']}\n", "")
    daemon.until(lambda: daemon.shown() == [])


def test_an_amount_is_served_by_mig_where_fractions_are_not(daemon: MigDaemon) -> None:
    """A request means the same with and without a container."""
    done = run(daemon, "--gpu-memory=10G", "--quiet", "--", "printenv", "CUDA_VISIBLE_DEVICES")
    assert done.stdout.startswith("MIG-"), done.stderr


@pytest.mark.parametrize(
    ("words", "code"),
    [(["--mig=2g.20gb"], "GP103"), (["--mig=1g.5gb", "--gpu-memory=8G"], "GP104"),
     (["--mig=1g.5gb", "--gpus=2"], "GP107"), (["--gpu-memory=1G", "--gpu-role=fraction"], "GP109")],
)  # fmt: skip
def test_refusals_are_the_same(daemon: MigDaemon, words: list[str], code: str) -> None:
    """Nothing is started, and nothing is made."""
    done = run(daemon, *words, "--", "echo", "started")
    assert (done.returncode, done.stdout) == (1, "") and done.stderr.startswith(code)
    assert daemon.shown() == [] and daemon.ps() == []


def test_an_instance_that_cannot_be_made_starts_nothing(tmp_path: Path) -> None:
    """The driver's word is said; the command's own, not a container's."""
    with MigDaemon(tmp_path) as daemon:
        daemon.stop()
        daemon.env[FAULTS] = "nvmlGpuInstanceCreateComputeInstance=999"
        daemon.start()
        done = run(daemon, "--mig=1g.5gb", "--", "echo", "started")
        assert (done.returncode, done.stdout) == (1, "")
        assert "GP306 making the MIG instance 1g.5gb" in done.stderr
        assert daemon.shown() == [] and daemon.ps() == []


def test_a_node_that_cannot_serve_speaks_of_a_command(tmp_path: Path) -> None:
    """Not of a container."""
    with MigDaemon(tmp_path) as daemon:
        sickness.error(daemon.there.state, 0)
        daemon.until(lambda: daemon.gpus()[0]["health"] != "ok")
        done = run(daemon, "--mig=1g.5gb", "--", "echo", "started")
        assert done.returncode == 1 and done.stderr.startswith("GP309 this node cannot hold a process")
        assert "The command was not started" in done.stderr
