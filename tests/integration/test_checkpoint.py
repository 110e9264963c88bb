"""Checkpoint and restore: a restored container has its grant, or there is a sentence and no container."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.native.debian import UnavailableError
from tests.support import bundle, criu
from tests.support.daemon import Daemon, Sleeper
from tests.support.oci import Oci

pytestmark = pytest.mark.containers


@pytest.fixture(params=["runc", "crun"])
def oci(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Oci]:
    if why := bundle.runs_containers() or (
        bundle.low_level(request.param) is None and f"needs {request.param}"
    ):
        pytest.skip(why)
    with Daemon(tmp_path, options=["--reservation-timeout", "3600"]) as daemon:
        made = Oci(tmp_path / "oci", request.param, daemon)
        yield made
        made.delete()
        daemon.until(lambda: not daemon.ps() and not daemon.folders())
        assert made.leftovers() == []


def test_a_restore_that_fails_holds_nothing(oci: Oci) -> None:
    """Of images that are not there. crun, which would call no hook, is not even asked."""
    oci.write()
    done = oci.call("restore", "--image-path", str(oci.folder / "none"), "--detach", oci.id)
    assert done.returncode != 0
    assert ("GP302" in oci.said()) is (oci.name == "crun"), oci.said()
    assert oci.state() is None and not oci.pids()
    oci.daemon.until(lambda: not oci.daemon.ps() and not oci.daemon.folders())


@pytest.fixture
def checkpoints(oci: Oci) -> Oci:
    """One that can: it finds a criu that runs here, and the container has nothing of the test's open."""
    try:
        oci.path = f"{criu.folder()}:{oci.path}"
    except UnavailableError as why:
        pytest.skip(f"needs a criu that runs on this kernel: {why}")
    oci.options = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    oci.write(request="")
    oci.bare("create", oci.id, **oci.options)
    oci.bare("start", oci.id)
    done = oci.bare("checkpoint", "--image-path", str(oci.folder / "alone"), oci.id)
    oci.bare("delete", "--force", oci.id)
    if done.returncode != 0:
        pytest.skip(f"needs a {oci.name} that checkpoints: {done.stderr.decode()[-200:]}")
    return oci


def checkpointed(oci: Oci, *flags: str) -> tuple[dict[str, Any], list[str]]:
    """What its grant was, and the words of its restore; config.json is as it was before our edit."""
    images = ["--image-path", str(oci.folder / "images")]
    oci.write()
    config = oci.bundle.config.read_bytes()
    oci.start()
    (before,) = oci.daemon.ps()
    done = oci.call("checkpoint", *images, *flags, oci.id)
    assert done.returncode == 0, oci.said()
    oci.bundle.config.write_bytes(config)
    return before, ["restore", *images, "--detach", oci.id]


def test_a_checkpointed_container_gives_its_grant_back_and_a_restored_one_has_one(checkpoints: Oci) -> None:
    """The first process is the same, its grant is another."""
    oci = checkpoints
    before, restore = checkpointed(oci)
    oci.daemon.until(lambda: not oci.daemon.ps())
    oci.delete()
    done = oci.call(*restore)
    if oci.name == "crun":
        assert done.returncode != 0 and "GP302" in oci.said() and not oci.daemon.ps()
        return
    assert done.returncode == 0, oci.said()
    (after,) = oci.daemon.ps()
    assert after["pids"] == [oci.pid()] and after["token"] != before["token"]


def test_a_checkpoint_that_stops_nothing_changes_nothing(checkpoints: Oci) -> None:
    """Its grant stays, and is given back when it ends."""
    before, _ = checkpointed(checkpoints, "--leave-running")
    (after,) = checkpoints.daemon.ps()
    assert (after["token"], after["pids"]) == (before["token"], before["pids"])


@contextlib.contextmanager
def taken(daemon: Daemon) -> Iterator[None]:
    """Another has the whole GPU."""
    with Sleeper() as other:
        daemon.confirm(daemon.create("GPU_COUNT=1", id="other").token, other)
        yield
    daemon.until(lambda: not daemon.ps())


def test_a_restore_fails_where_nothing_is_left_to_grant(checkpoints: Oci) -> None:
    """Another has the room meanwhile: a refusal, and no process of the checkpoint runs."""
    oci = checkpoints
    _, restore = checkpointed(oci)
    oci.daemon.until(lambda: not oci.daemon.ps())
    oci.delete()
    if oci.name == "crun":
        return
    with taken(oci.daemon):
        done = oci.call(*restore)
        assert done.returncode != 0 and "GP101" in oci.said()
        assert oci.state() is None and not oci.pids() and len(oci.daemon.ps()) == 1
    assert oci.call(*restore).returncode == 0, oci.said()
