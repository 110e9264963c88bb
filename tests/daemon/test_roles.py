"""Roles by the protocol and the command line: who may change them, and what outlives a restart or a reboot."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.daemon import Daemon, Sleeper
from tests.support.session import CudaSession

from gpuportion import simgpu
from gpuportion.errors import RefusedError
from gpuportion.simgpu import Sim, mig

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: MIG is changed by root alone")
GPUPORTION = [sys.executable, "-m", "gpuportion"]
CLIENT = str(Path(__file__).parents[1] / "support/cuda_session.py")


def sim(daemon: Daemon) -> Sim:
    found = simgpu.status(str(daemon.run_dir / "sim"))
    assert found is not None
    return found.sim


def change(daemon: Daemon, op: str, *gpus: str) -> list[tuple[int, str, str]]:
    """(index, role, mode) of the GPUs that were meant."""
    rows = daemon.ask(op, role="mig", gpus=list(gpus)).head["gpus"]
    return [(row["index"], row["role"], row["mig"]) for row in rows]


def test_a_role_and_its_mode_outlive_a_reboot(tmp_path: Path) -> None:
    """Hopper forgets the mode, Ampere does not; either way the GPU serves again, without a word from anybody."""
    with Daemon(tmp_path, sim="a100-40gb,h100-80gb") as daemon:
        assert change(daemon, "set-role") == [(0, "mig", "off, on after a reset"), (1, "mig", "on")]
        assert "--gpu-reset -i 0" in daemon.gpus()[0]["health"]
        with pytest.raises(RefusedError, match=r"GP302.*--gpu-reset -i 0"):
            daemon.create("GPU_MIG=1g.5gb", "GPU_SELECT=0")
        daemon.stop()
        mig.reset(sim(daemon).state, 0)
        mig.reboot(sim(daemon).state)
        assert [mig.modes(sim(daemon).state, i) for i in (0, 1)] == [(True, True), (False, False)]
        daemon.start()
        daemon.until(lambda: [gpu["health"] for gpu in daemon.gpus()] == ["ok", "ok"])
        assert [gpu["role"] for gpu in daemon.gpus()] == ["mig", "mig"]
        granted = daemon.create("GPU_MIG=1g.10gb", "GPU_SELECT=1")
        with Sleeper() as container:
            daemon.confirm(granted.token, container)
        daemon.until(lambda: not daemon.ps())
        assert change(daemon, "remove-role", "1") == [(1, "fraction", "off")]
        assert json.loads((daemon.state_dir / "roles.json").read_text()) == {
            "mig": [daemon.gpus()[0]["uuid"]]
        }


def test_a_process_without_a_grant_is_named(tmp_path: Path) -> None:
    """One of the host, that nobody knows of; when it has ended nothing is in the way any more."""
    with Daemon(tmp_path, sim="h100-80gb") as daemon:
        env = {**os.environ, **sim(daemon).env()}
        with CudaSession([sys.executable, CLIENT], env=env) as client:
            daemon.until(lambda: daemon.gpus()[0]["unmanaged"] > 0)
            with pytest.raises(RefusedError, match=f"GP112.*in use by pid {client.pid} python"):
                change(daemon, "set-role", "0")
            assert daemon.gpus()[0]["role"] == "fraction"
        assert change(daemon, "set-role", "0") == [(0, "mig", "on")]


def test_a_role_that_is_none_and_words_that_are_none_are_refused(tmp_path: Path) -> None:
    """By the protocol as by the command line."""
    with Daemon(tmp_path, sim="t4-16gb") as daemon:
        for role, gpus, text in (
            ("fraction", [], "GP304.*no role is called"),
            ("mig", "0", "GP304.*gpus is no list"),
            ("mig", [""], "GP304.*gpus is no list"),
            ("mig", ["0"], "GP112.*its board, or its driver, has no MIG"),
            ("mig", [], "GP112.*none of them has MIG"),
        ):
            with pytest.raises(RefusedError, match=text):
                daemon.ask("set-role", role=role, gpus=gpus)
        words = [*GPUPORTION, "node", "set-role", "--gpu", "0"]
        done = subprocess.run(words, env=daemon.env, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 2 and "--mig-enabled" in done.stderr
