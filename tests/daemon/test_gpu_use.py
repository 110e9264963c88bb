"""What real CUDA clients take on a simulated GPU, as the daemon sees and attributes it."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import cast

import pytest
from tests.support.daemon import GB, MIB, Daemon
from tests.support.session import CudaSession

from gpuportion import simgpu
from gpuportion.allocator import learning
from gpuportion.simgpu.behaviour import DRIVER_VERSION
from gpuportion.simgpu.costs import DEFAULTS

pytestmark = pytest.mark.clients
CLIENT = str(Path(__file__).parents[1] / "support" / "cuda_session.py")
READ = "import json; from dataclasses import asdict; from gpuportion.allocator.inventory import Nvml;"


def environment(daemon: Daemon) -> dict[str, str]:
    """Where a process of this host finds the daemon's simulated driver."""
    sim = daemon.run_dir / "sim"
    return {**daemon.env, "GPUPORTION_SIM_STATE": str(sim / "state"), "LD_LIBRARY_PATH": str(sim / "lib")}


@pytest.fixture(autouse=True)
def cuda() -> None:
    pytest.importorskip("cuda.bindings", reason="needs the extra `clients`: cuda-bindings")


def test_a_context_is_learned_from_the_first_process(daemon: Daemon) -> None:
    """What NVML has more than the ledger, which is what the simulated driver takes; new grants are charged it."""
    kept = daemon.state_dir / "context.json"
    command = [sys.executable, "-m", "gpuportion", "exec", "--gpu-memory", "1G", "--", sys.executable, CLIENT]
    with CudaSession(command, env=environment(daemon)) as client:
        assert client.alloc(300 * 10**6) == "CUDA_SUCCESS"
        daemon.until(kept.exists)
        (row,) = daemon.ps()
        counted = row["gpus"][0]["used"]
    ((model, learned),) = learning.load(str(kept)).items()
    assert "A100" in model and DRIVER_VERSION in model and learned.context == DEFAULTS["context"]
    assert counted >= 300 * 10**6 + learning.DEFAULT
    daemon.until(lambda: not daemon.ps())
    with CudaSession(command, env=environment(daemon)) as client:
        total, free = (client.ask("info")[key] for key in ("total", "free"))
        assert total - free == DEFAULTS["context"]


def test_another_driver_is_learned_anew(daemon: Daemon) -> None:
    """What was voted under the last one is kept, and is not what new grants are charged."""
    kept = daemon.state_dir / "context.json"
    votes = {"votes": [900 * MIB] * learning.VOTES, "ceiling": 900 * MIB}
    model = daemon.gpus()[0]["model"]
    daemon.stop()
    kept.parent.mkdir(exist_ok=True)
    kept.write_text(json.dumps({learning.kind(model, "470.00"): votes}))
    daemon.start()
    command = [sys.executable, "-m", "gpuportion", "exec", "--gpu-memory", "1G", "--", sys.executable, CLIENT]
    with CudaSession(command, env=environment(daemon)) as client:
        total, free = (client.ask("info")[key] for key in ("total", "free"))
        assert total - free == learning.DEFAULT
        daemon.until(lambda: learning.kind(model, DRIVER_VERSION) in learning.load(str(kept)))
    assert learning.load(str(kept))[learning.kind(model, "470.00")].context == 900 * MIB


def test_loaded_code_is_counted_once_nvml_shows_it(daemon: Daemon) -> None:
    """What the ledger counts then is what NVML has, and the process is refused what does not fit any more."""
    command = [sys.executable, "-m", "gpuportion", "exec", "--gpu-memory", "1G", "--", sys.executable, CLIENT]
    with CudaSession(command, env=environment(daemon)) as client:
        assert client.alloc(300 * 10**6) == "CUDA_SUCCESS"
        before = client.ask("info")["free"]
        assert client.ask("load", 100) == {"result": "CUDA_SUCCESS"}
        daemon.until(lambda: client.ask("info")["free"] < before)
        daemon.until(lambda: bool(daemon.gpus()[0]["used"] <= daemon.ps()[0]["gpus"][0]["used"] + MIB))
        free = client.ask("info")["free"]
        assert before - free <= 100 * DEFAULTS["module"]
        assert client.alloc(free + 4 * MIB) == "CUDA_ERROR_OUT_OF_MEMORY"
        assert client.alloc(free - 4 * MIB) == "CUDA_SUCCESS"


def in_nested_namespace(init: int, environ: dict[str, str]) -> CudaSession:
    """A client in the mount namespace of process `init`, and in a pid namespace of its own, where it is 1."""
    enter = ["nsenter", f"--target={init}", "--mount"]
    alone = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    return CudaSession([*enter, *alone, sys.executable, CLIENT], env=environ)


def test_code_is_counted_for_each_of_two_processes_that_are_number_one(daemon: Daemon) -> None:
    """Nested pid namespaces in one portion: the ledger has two processes 1, and each is told its own."""
    if os.geteuid() != 0:
        pytest.skip("needs root: makes pid namespaces")
    words = [sys.executable, "-m", "gpuportion", "exec", "--gpu-memory", "4G", "--", "sleep", "600"]
    with subprocess.Popen(words, env=environment(daemon)) as init:
        try:
            daemon.until(lambda: Path(f"/proc/{init.pid}/comm").read_text() == "sleep\n")
            daemon.until(lambda: bool(Path(f"/proc/{init.pid}/environ").read_text()))
            pairs = Path(f"/proc/{init.pid}/environ").read_text().rstrip("\0").split("\0")
            environ = dict(pair.split("=", 1) for pair in pairs)
            with in_nested_namespace(init.pid, environ) as one, in_nested_namespace(init.pid, environ) as two:
                assert (one.pid, two.pid) == (1, 1)
                assert one.alloc(300 * 10**6) == two.alloc(600 * 10**6) == "CUDA_SUCCESS"
                assert two.ask("load", 200) == {"result": "CUDA_SUCCESS"}
                daemon.until(lambda: daemon.gpus()[0]["used"] >= 900 * 10**6 + 200 * DEFAULTS["module"])

                def counted() -> int:
                    assert one.ask("info") and two.ask("info")
                    return int(daemon.ps()[0]["gpus"][0]["used"])

                daemon.until(lambda: daemon.gpus()[0]["used"] <= counted() + MIB)
        finally:
            init.kill()


def test_a_plain_process_finds_what_its_daemon_simulates(daemon: Daemon) -> None:
    """`gpuportion exec` beside a daemon that was moved: nothing has to be set by hand."""
    command = [sys.executable, "-m", "gpuportion", "exec", "--gpu-memory", "1G", "--", sys.executable, CLIENT]
    with CudaSession(command, env=daemon.env) as client:
        assert client.opened == "CUDA_SUCCESS"
        assert client.ask("info")["total"] == GB - GB % MIB


def test_memory_of_processes_without_a_grant_cannot_be_granted(daemon: Daemon) -> None:
    """A root shell's training job: what it holds comes off, and comes back when it ends."""
    before = daemon.gpus()[0]["free"]
    with CudaSession([sys.executable, CLIENT], env=environment(daemon)) as client:
        assert client.alloc(20 * GB) == "CUDA_SUCCESS"
        daemon.until(lambda: daemon.gpus()[0]["unmanaged"] >= 20 * GB)
        assert daemon.gpus()[0]["free"] <= before - 20 * GB
    daemon.until(lambda: bool(daemon.gpus()[0]["free"] == before))


def test_memory_of_a_grant_is_not_taken_off_twice(daemon: Daemon) -> None:
    """The grant counts with its limit, whatever of it is in use."""
    command = [sys.executable, "-m", "gpuportion", "exec", "--gpu-memory", "8G", "--", sys.executable, CLIENT]
    with CudaSession(command, env=environment(daemon)) as client:
        assert client.alloc(4 * GB) == "CUDA_SUCCESS"
        daemon.until(lambda: bool(daemon.gpus()[0]["used"] >= 4 * GB))
        gpu = daemon.gpus()[0]
        assert gpu["unmanaged"] == 0
        assert gpu["granted"] == 8 * GB // MIB * MIB


def sample(folder: Path, code: str = "", **env: str) -> dict[str, object]:
    """What a process with this environment reads from NVML."""
    done = subprocess.run(
        [sys.executable, "-c", f"{READ} n = Nvml(); {code} print(json.dumps(asdict(n.sample())))"],
        env={"PATH": "/usr/bin:/bin", **env},
        capture_output=True,
        text=True,
        check=True,
        cwd=folder,
    )
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def test_the_inventory_is_what_nvml_says(tmp_path: Path) -> None:
    """Indexes, UUIDs, sizes and processes of the board that was asked for."""
    sim = simgpu.start("a100-80gb:2", str(tmp_path / "sim"), cdi_dir=None)
    env = {"GPUPORTION_NVML": f"{sim.lib}/libnvidia-ml.so.1", "GPUPORTION_SIM_STATE": sim.state}
    with CudaSession([sys.executable, CLIENT], env={**env, "LD_LIBRARY_PATH": sim.lib}) as client:
        assert client.alloc(GB) == "CUDA_SUCCESS"
        found = sample(tmp_path, **env)
        pid = client.pid
    readings = found["readings"]
    assert isinstance(readings, list) and found["trouble"] == ""
    for reading, device in zip(readings, sim.devices, strict=True):
        same = ("index", "uuid", "total", "reserved")
        assert {key: reading[key] for key in same} == {
            key: value for key, value in dataclasses.asdict(device).items() if key in same
        }
    assert readings[0]["processes"] == {str(pid): readings[0]["used"]}
    assert readings[0]["used"] >= GB and readings[1]["used"] == 0


@pytest.mark.parametrize(("version", "served"), [("465.19.01", False), ("470.00.00", True)])
def test_a_driver_that_is_too_old_serves_nothing(tmp_path: Path, version: str, served: bool) -> None:
    """Its GPUs are listed, with the reason why nothing is granted on them."""
    sim = simgpu.start("a100-80gb:1", str(tmp_path / "sim"), cdi_dir=None)
    state = Path(sim.state)
    known = f"driver.version {DRIVER_VERSION}".encode()
    assert len(version) == len(DRIVER_VERSION) and known in state.read_bytes()
    state.write_bytes(state.read_bytes().replace(known, f"driver.version {version}".encode()))
    env = {"GPUPORTION_NVML": f"{sim.lib}/libnvidia-ml.so.1", "GPUPORTION_SIM_STATE": sim.state}
    (reading,) = cast(list[dict[str, str]], sample(tmp_path, **env)["readings"])
    expected = "" if served else f"the driver {version} is older than 470, the oldest that is supported"
    assert reading["trouble"] == expected


@pytest.mark.parametrize(
    ("library", "why"),
    [
        ("/nonexistent/libnvidia-ml.so.1", "/nonexistent/libnvidia-ml.so.1"),
        ("", "NVIDIA driver's management library"),
    ],
)
def test_without_nvml_there_is_a_sentence_and_no_exception(tmp_path: Path, library: str, why: str) -> None:
    """Also when it is asked again."""
    found = sample(tmp_path, code="n.sample();", **({"GPUPORTION_NVML": library} if library else {}))
    assert found["readings"] == []
    assert why in str(found["trouble"])
