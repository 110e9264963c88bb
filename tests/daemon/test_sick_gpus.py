"""GPUs and drivers that fall ill under a daemon: out of placement, and back in; what runs and what is well stays."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.daemon import GB, Daemon, Sleeper
from tests.support.session import CudaSession

from gpuportion import simgpu
from gpuportion.errors import RefusedError
from gpuportion.simgpu import sickness

CLIENT = str(Path(__file__).parents[1] / "support" / "cuda_session.py")
PIN = "GPU_SELECT=0"


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Daemon]:
    with Daemon(tmp_path, sim="a100-80gb:2") as running:
        yield running


def state(daemon: Daemon) -> str:
    return str(daemon.run_dir / "sim/state")


def health(daemon: Daemon) -> list[str]:
    return [gpu["health"] for gpu in daemon.gpus()]


def refusal(daemon: Daemon, *env: str) -> str:
    return refusal_of(daemon, "GPU_MEMORY_LIMIT=1G", *env)


def refusal_of(daemon: Daemon, *env: str) -> str:
    with pytest.raises(RefusedError) as caught:
        daemon.create(*env, id="late")
    return str(caught.value)


def served_by(daemon: Daemon, *env: str) -> int:
    """The index of the GPU that serves a request now; its reservation is taken back."""
    granted = daemon.create("GPU_MEMORY_LIMIT=1G", *env, id="asked")
    (row,) = (row for row in daemon.ps() if row["token"] == granted.token)
    with Sleeper() as container:
        daemon.confirm(granted.token, container)
    daemon.until(lambda: all(one["token"] != granted.token for one in daemon.ps()))
    return int(row["gpus"][0]["index"])


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (sickness.LOST, "fallen off the bus"),
        (sickness.RESET_REQUIRED, "must be reset"),
        (sickness.UNKNOWN, "Unknown"),
    ],
)
def test_a_gpu_that_nvml_has_an_error_for_serves_nobody(two: Daemon, number: int, said: str) -> None:
    """The other one serves; a grant on it stays, and it is back with its first good answer."""
    granted = two.create("GPU_MEMORY_LIMIT=2G", PIN, id="before")
    with Sleeper() as container:
        two.confirm(granted.token, container)
        sickness.error(state(two), 0, number)
        two.until(lambda: said in health(two)[0])
        assert health(two)[1] == "ok" and two.gpus()[0]["free"] == 0
        assert said in refusal(two, PIN) and "GP302" in refusal(two, PIN)
        assert served_by(two) == 1
        assert [row["container"] for row in two.ps()] == ["before"]
        sickness.recover(state(two), 0)
        two.until(lambda: health(two) == ["ok", "ok"])
        assert served_by(two, PIN) == 0
    log = two.log.read_text()
    assert "GPU 0 serves nobody" in log and "GPU 0 serves again" in log and "GPU 1 serves" not in log


def test_an_xid_takes_its_gpu_out_until_the_driver_has_it_well(two: Daemon) -> None:
    """With its number and what must be done; a program's own XID does nothing but a line in the log."""
    sickness.raise_xid(state(two), 0, 31)
    two.until(
        lambda: (
            "GPU 0 had XID 31 (GPU memory page fault): a program's, nothing follows" in two.log.read_text()
        )
    )
    assert health(two) == ["ok", "ok"]
    sickness.raise_xid(state(two), 1, 79, action=1)
    two.until(lambda: "XID 79" in health(two)[1])
    assert "reset" in health(two)[1] and health(two)[0] == "ok"
    assert served_by(two) == 0
    assert "XID 79" in refusal(two, "GPU_SELECT=1")
    sickness.recover(state(two), 1)
    two.until(lambda: health(two) == ["ok", "ok"])


def test_a_driver_that_was_not_there_at_the_start_is_found_later(tmp_path: Path) -> None:
    """The daemon stays up and says why nobody is served; nothing needs a restart."""
    daemon = Daemon(tmp_path)
    sim = simgpu.start(daemon.sim, str(daemon.run_dir / "sim"), cdi_dir=None)
    sickness.driver_error(sim.state)
    with daemon:
        assert "Driver Not Loaded" in daemon.ask("node").head["trouble"] and daemon.gpus() == []
        assert "Driver Not Loaded" in refusal(daemon)
        sickness.driver_error(sim.state, 0)
        daemon.until(lambda: health(daemon) == ["ok"])
        assert served_by(daemon) == 0


def test_a_gpu_that_was_ill_at_the_start_keeps_no_other_from_serving(tmp_path: Path) -> None:
    """It is listed by its number, and by itself when it is well."""
    daemon = Daemon(tmp_path, sim="a100-80gb:2")
    sim = simgpu.start(daemon.sim, str(daemon.run_dir / "sim"), cdi_dir=None)
    sickness.error(sim.state, 0)
    with daemon:
        assert [gpu["model"] == "unknown" for gpu in daemon.gpus()] == [True, False]
        assert served_by(daemon) == 1
        sickness.recover(sim.state, 0)
        daemon.until(lambda: health(daemon) == ["ok", "ok"])
        assert [gpu["uuid"] for gpu in daemon.gpus()] == [device.uuid for device in sim.devices]


def test_a_gpu_that_is_listed_no_more_is_shown_and_serves_nobody(two: Daemon) -> None:
    """Its grants stay, and so does the other GPU; it is taken up again when it is there."""
    granted = two.create("GPU_MEMORY_LIMIT=2G", "GPU_SELECT=1", id="before")
    with Sleeper() as container:
        two.confirm(granted.token, container)
        sickness.miss(state(two), 1)
        two.until(lambda: health(two) == ["ok", "the NVIDIA driver lists it no more"])
        two.until(lambda: "GPU 1 serves nobody" in two.log.read_text())
        assert [row["container"] for row in two.ps()] == ["before"]
        assert "lists it no more" in refusal(two, "GPU_SELECT=1")
        assert served_by(two) == 0
        sickness.miss(state(two), 0)
        two.until(lambda: health(two) == ["ok", "ok"])


@pytest.mark.parametrize("version", ["", "610.43.99"], ids=["same", "another"])
def test_a_driver_that_is_loaded_anew_is_taken_up(two: Daemon, version: str) -> None:
    """The session begins anew; of another version the library is loaded anew as well. Grants stay."""
    granted = two.create("GPU_MEMORY_LIMIT=2G", PIN, id="before")
    with Sleeper() as container:
        two.confirm(granted.token, container)
        sickness.reload_driver(state(two), version)
        two.until(lambda: two.ask("node").head["trouble"] != "")
        two.until(lambda: health(two) == ["ok", "ok"])
        assert two.ask("node").head["driver"] == (version or simgpu.Behaviour().driver)
        assert [row["container"] for row in two.ps()] == ["before"]
        assert served_by(two, PIN) == 0


def test_calls_that_hang_serve_nobody_and_say_since_when(two: Daemon) -> None:
    """The daemon answers meanwhile; what runs stays; when NVML answers again all is as before."""
    granted = two.create("GPU_MEMORY_LIMIT=2G", PIN, id="before")
    with Sleeper() as container:
        two.confirm(granted.token, container)
        sickness.hang(state(two))
        two.until(lambda: "has not answered since" in health(two)[0])
        for request in ("GPU_COUNT=1", "GPU_MIG=1g.10gb"):
            assert "has not answered since" in refusal_of(two, request)
        assert [row["container"] for row in two.ps()] == ["before"]
        sickness.hang(state(two), False)
        two.until(lambda: health(two) == ["ok", "ok"])
        assert served_by(two, PIN) == 0


@pytest.mark.clients
def test_memory_that_no_process_is_listed_for_is_said(two: Daemon) -> None:
    """In `node`, by itself; and it is granted to nobody."""
    pytest.importorskip("cuda.bindings", reason="needs the extra `clients`: cuda-bindings")
    lib = str(two.run_dir / "sim/lib")
    env = {**os.environ, "GPUPORTION_SIM_STATE": state(two), "LD_LIBRARY_PATH": lib}
    sickness.silence(state(two), 0)
    with CudaSession([sys.executable, CLIENT], env=env) as client:
        assert client.alloc(3 * GB) == "CUDA_SUCCESS"
        two.until(lambda: bool(two.gpus()[0]["unaccounted"] >= 3 * GB))
        assert two.gpus()[0]["unmanaged"] == two.gpus()[0]["unaccounted"]
    two.until(lambda: two.gpus()[0]["unaccounted"] == 0)
