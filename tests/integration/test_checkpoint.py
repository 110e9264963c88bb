"""Checkpoint and restore: a restored container has its grant, or there is a sentence and no container."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support import bundle, engines
from tests.support.daemon import Daemon
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


def test_a_checkpointed_container_gives_its_grant_back_and_a_restored_one_has_one(oci: Oci) -> None:
    """The first process is the same, its grant is another."""
    if reason := without_criu(oci):
        pytest.skip(reason)
    images = oci.folder / "images"
    oci.write()
    config = oci.bundle.config.read_bytes()
    oci.start()
    (before,) = oci.daemon.ps()
    done = oci.call("checkpoint", "--image-path", str(images), oci.id)
    assert done.returncode == 0, oci.said()
    oci.daemon.until(lambda: not oci.daemon.ps())
    oci.delete()
    oci.bundle.config.write_bytes(config)
    done = oci.call("restore", "--image-path", str(images), "--detach", oci.id)
    assert done.returncode == 0, oci.said()
    (after,) = oci.daemon.ps()
    assert after["pids"] == [oci.pid()] and after["token"] != before["token"]


def without_criu(oci: Oci) -> str | None:
    """Why this runtime can checkpoint nothing here, even without us; None: it can."""
    if reason := engines.missing("criu"):
        return reason
    said = subprocess.run(["criu", "check"], capture_output=True, text=True, check=False)
    if said.returncode != 0:
        return f"needs a criu that runs on this kernel: {said.stderr.strip().splitlines()[-1]}"
    images = str(oci.folder / "alone")
    oci.write(request="")
    oci.bare("create", oci.id)
    oci.bare("start", oci.id)
    done = oci.bare("checkpoint", "--image-path", images, oci.id)
    oci.bare("delete", "--force", oci.id)
    return (
        None
        if done.returncode == 0
        else f"needs a {oci.name} that checkpoints: {done.stderr.decode()[-200:]}"
    )
