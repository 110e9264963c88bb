"""A driver whose looks at MIG fail, hang, or end in the midst: nothing is lost, leaked or taken from anybody.

What a request is told may differ by the moment; afterwards book and driver agree, and the next request is served."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest
from tests.daemon.test_mig_driver import CREATE, UNKNOWN, FaultyDaemon
from tests.support.daemon import Sleeper
from tests.support.mig_daemon import FAULTS, MigDaemon

from gpuportion.errors import RefusedError
from gpuportion.simgpu import sickness

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: MIG is changed by root alone")

LIST = "nvmlDeviceGetGpuInstances"
LONG = bool(os.environ.get("GPUPORTION_TEST_LONG"))
TIMES = ["1", "1-4", "2-9"] if LONG else ["1-4"]
"""Which calls of a function fail, as the daemon makes them."""
LOOKS = [
    "nvmlGpuInstanceGetInfo",
    "nvmlComputeInstanceGetInfo_v2",
    "nvmlGpuInstanceGetComputeInstances",
    *(["nvmlDeviceGetGpuInstanceById", "nvmlGpuInstanceGetComputeInstanceProfileInfoV"] if LONG else []),
]


def agree(daemon: MigDaemon) -> bool:
    """Whether each instance is in the book, whole, and no other is there."""
    written = [(one["gi"], one["profile"], one["start"], one["size"], one["phase"]) for one in daemon.book()]
    return sorted(written) == sorted((*seen, "ready") for seen in map(tuple, daemon.shown()))


@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize("call", LOOKS)
def test_what_is_made_while_looks_fail_is_not_lost(tmp_path: Path, call: str, times: str) -> None:
    """Made, handed over or undone: an instance that nobody knows of is never left."""
    with FaultyDaemon(tmp_path, f"{call}@{times}={UNKNOWN}") as daemon:
        for number in range(3):
            try:
                with Sleeper() as container:
                    daemon.confirm(daemon.create("GPU_MIG=2g.10gb", id=f"c{number}").token, container)
                    break
            except RefusedError as refusal:
                assert refusal.code in ("GP101", "GP302", "GP306")
        daemon.until(lambda: not daemon.ps() and agree(daemon))
        daemon.until(lambda: ask(daemon) == "")
        daemon.until(lambda: agree(daemon))
        assert daemon.states() == ["7g.40gb@0 in-use"]


def one_in_use_and_one_idle(daemon: MigDaemon, container: Sleeper) -> list[dict[str, Any]]:
    """An instance for `container`, and one whose container has ended; what is written down of both."""
    daemon.confirm(daemon.create("GPU_MIG=2g.10gb", id="train").token, container)
    with Sleeper() as other:
        daemon.confirm(daemon.create("GPU_MIG=1g.5gb", id="over").token, other)
    daemon.until(lambda: len(daemon.ps()) == 1)
    return daemon.book()


def test_while_instances_cannot_be_listed_nothing_is_touched(tmp_path: Path) -> None:
    """Who asks is told; who has an instance keeps it; the idle one is still ours afterwards."""
    with MigDaemon(tmp_path) as daemon, Sleeper() as container:
        before = one_in_use_and_one_idle(daemon, container)
        daemon.stop()
        daemon.env[FAULTS] = f"{LIST}@1-5={UNKNOWN}"
        daemon.start()
        assert daemon.gpus()[0]["health"] != "ok"
        with pytest.raises(RefusedError, match=r"GP302 .*GPU 0: "):
            daemon.create("GPU_MIG=1g.5gb", id="late")
        assert [row["container"] for row in daemon.ps()] == ["train"] and daemon.book() == before
        daemon.until(lambda: daemon.gpus()[0]["health"] == "ok")
        assert daemon.book() == before and agree(daemon)
        daemon.create("GPU_MIG=1g.5gb", id="next")
        assert {one["uuid"] for one in daemon.instances()} == {one["uuid"] for one in before}


def test_a_look_that_hangs_keeps_its_gpu_alone(tmp_path: Path) -> None:
    """The request is given up in time; the other GPU makes instances meanwhile."""
    hangs = "nvmlGpuInstanceGetComputeInstanceProfileInfoV@1+3000000us"
    with FaultyDaemon(tmp_path, hangs, "a100-40gb:2", ("--mig-timeout", "1")) as daemon:
        with pytest.raises(RefusedError, match=r"GP306 .*has not done it in 1 s"):
            daemon.create("GPU_MIG=1g.5gb", "GPU_SELECT=0", id="slow")
        daemon.create("GPU_MIG=1g.5gb", "GPU_SELECT=1", id="quick")
        assert "has not ended" in daemon.gpus()[0]["health"] and daemon.gpus()[1]["health"] == "ok"
        daemon.until(lambda: daemon.gpus()[0]["health"] == "ok")
        daemon.until(lambda: sorted(one["phase"] for one in daemon.book()) == ["ready"] * 2)
        daemon.create("GPU_MIG=1g.5gb", "GPU_SELECT=0", id="again")
        assert len(daemon.shown(0)) == len(daemon.shown(1)) == 1


@pytest.mark.parametrize("during", [CREATE, "nvmlGpuInstanceDestroy"])
def test_a_gpu_that_is_lost_in_the_midst_leaves_nothing_behind(tmp_path: Path, during: str) -> None:
    """While something is made or removed; once it is well again book and driver agree."""
    with FaultyDaemon(tmp_path, f"{during}@1+1500000us") as daemon:
        if during == "nvmlGpuInstanceDestroy":
            with Sleeper() as container:
                daemon.confirm(daemon.create("GPU_MIG=3g.20gb", id="first").token, container)
            daemon.until(lambda: not daemon.ps())
        refused: list[str] = []
        thread = threading.Thread(target=lambda: refused.append(ask(daemon)))
        thread.start()
        daemon.until(lambda: any(one["phase"] != "ready" for one in daemon.book()))
        sickness.error(daemon.there.state, 0)
        thread.join()
        assert refused[0] == "" or refused[0].startswith(("GP101", "GP302", "GP306")), refused
        daemon.until(lambda: "fallen off the bus" in daemon.gpus()[0]["health"])
        with pytest.raises(RefusedError, match="GP302"):
            daemon.create("GPU_MIG=1g.5gb", id="while-lost")
        sickness.recover(daemon.there.state, 0)
        daemon.until(lambda: daemon.gpus()[0]["health"] == "ok")
        daemon.until(lambda: agree(daemon))
        for row in daemon.ps():
            assert refused == [""] and row["container"] == "midst"
        if refused != [""]:
            daemon.create("GPU_MIG=1g.5gb", id="after")


def ask(daemon: MigDaemon) -> str:
    """What a request that needs the whole GPU is told; "" if it gets it."""
    try:
        daemon.create("GPU_MIG=7g.40gb", id="midst")
    except RefusedError as refusal:
        return str(refusal)
    return ""


def test_who_has_an_instance_keeps_it_while_the_gpu_is_lost(tmp_path: Path) -> None:
    """And the idle ones stay written down, through a restart of the daemon too."""
    with MigDaemon(tmp_path) as daemon, Sleeper() as container:
        before = one_in_use_and_one_idle(daemon, container)
        sickness.error(daemon.there.state, 0)
        daemon.until(lambda: daemon.gpus()[0]["health"] != "ok")
        daemon.kill()
        daemon.start()
        daemon.until(lambda: daemon.gpus()[0]["health"] != "ok")
        assert [row["container"] for row in daemon.ps()] == ["train"] and daemon.book() == before
        sickness.recover(daemon.there.state, 0)
        daemon.until(lambda: daemon.gpus()[0]["health"] == "ok")
        assert daemon.states() == ["2g.10gb@4 in-use", "1g.5gb@6 idle"] and daemon.book() == before
