"""A MIG instance under podman and `ctr`, with runc and with crun: real engines, a simulated A100."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support import engines
from tests.support.engines import CLIENT_COMMAND, Engine
from tests.support.mig_daemon import MigDaemon
from tests.support.session import CudaSession

from gpuportion.simgpu import mig

pytestmark = [
    pytest.mark.containers,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: runs containers"),
]

NUMBERS = itertools.count()
MODEL = "NVIDIA A100-SXM4-40GB"
MB = 10**6


@pytest.fixture(scope="module")
def running() -> Iterator[MigDaemon]:
    """One A100 with 40 GB that serves by MIG."""
    folder = Path(tempfile.mkdtemp(prefix="gpuportion-mig-", dir="/tmp"))
    try:
        with MigDaemon(folder) as daemon:
            yield daemon
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def daemon(running: MigDaemon) -> Iterator[MigDaemon]:
    """Each test finds it without instances and grants."""
    yield running
    running.until(lambda: not running.ps())
    running.ask("mig-gc")
    assert running.shown() == []


@pytest.fixture(scope="module", params=engines.WITH_EACH_RUNTIME, ids="-".join)
def engine(
    request: pytest.FixtureRequest, running: MigDaemon, root_folder: Path, short_folder: Path
) -> Iterator[Engine]:
    """One engine before one low-level runtime, on a folder of its own."""
    kind, low_level = request.param
    with engines.one(kind, low_level, running, root_folder, short_folder / f"mig-{kind}-{low_level}") as made:
        yield made


@pytest.fixture
def name() -> str:
    return f"gpuportion-mig-{os.getpid()}-{next(NUMBERS)}"


def asking(profile: str) -> list[str]:
    return [f"--env=GPU_MIG={profile}"]


def seen(client: CudaSession) -> dict[str, Any]:
    """What CUDA and NVML show; its only instance as `part`."""
    assert client.opened == "CUDA_SUCCESS"
    found = client.ask("mig")
    ((found["uuid"], found["part"]),) = found["parts"].items()
    return found


def test_a_container_has_its_instance_and_leaves_it_idle(
    engine: Engine, daemon: MigDaemon, name: str
) -> None:
    """The first process of a container: the GPU is the instance, to the last byte; nothing else is there."""
    with engine.session(engine.run(name, asking("1g.5gb"), *CLIENT_COMMAND)) as client:
        found = seen(client)
        assert found["cuda"] == [f"{MODEL} MIG 1g.5gb"] and not found["aggregate"]
        assert client.ask("info")["device_total"] == found["part"]["total"] == 4864 << 20
        assert client.alloc(4000 * MB) == "CUDA_SUCCESS"
        assert client.alloc(1100 * MB) == "CUDA_ERROR_OUT_OF_MEMORY"
        (row,) = daemon.ps()
        assert (row["enforced_by"], row["mig"]["uuid"]) == ("mig", found["uuid"])
        client.end()
    daemon.until(lambda: not daemon.ps())
    assert [state.split(" ")[1] for state in daemon.states()] == ["idle"]


def test_containers_share_a_gpu_and_see_nothing_of_each_other(
    engine: Engine, daemon: MigDaemon, name: str
) -> None:
    """One asks by env, one by an annotation; processes that join later have the same two nodes and no others."""
    note = ["--annotation=gpuportion.io/mig=2g.10gb"]
    with engine.container(name, asking("1g.5gb")), engine.container(f"{name}-b", note):
        found = {}
        for each, profile in ((name, "1g.5gb"), (f"{name}-b", "2g.10gb")):
            with engine.session(engine.execute(each, *CLIENT_COMMAND)) as client:
                one = found[each] = seen(client)
                assert one["cuda"] == [f"{MODEL} MIG {profile}"]
                client.end()
        assert found[name]["uuid"] != found[f"{name}-b"]["uuid"]
        nodes = {each: capabilities(engine, each) for each in found}
        there = {
            one.uuid: {f"nvidia-cap{minor}" for minor in one.minors}
            for one in mig.devices(daemon.there.state)
        }
        assert nodes == {each: there[one["uuid"]] for each, one in found.items()}


def capabilities(engine: Engine, name: str) -> set[str]:
    done = engine.done(engine.execute(name, "/usr/bin/ls", "/dev/nvidia-caps"))
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_a_refusal_is_what_the_user_reads(engine: Engine, daemon: MigDaemon, name: str) -> None:
    """And nothing is made for it."""
    done = engine.done(engine.run(name, asking("2g.20gb"), "/usr/bin/true"))
    assert done.returncode != 0
    assert f'GP103 unknown MIG profile "2g.20gb" on {MODEL}. Available: 1g.5gb' in done.stderr
    for command in engine.remove(name):
        engine.done(command)
    assert daemon.shown() == [] and daemon.ps() == []
