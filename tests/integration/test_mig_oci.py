"""A MIG instance by runc and crun alone: the nodes and device rules of a container, as the kernel has them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support import bundle
from tests.support.mig_daemon import MigDaemon
from tests.support.oci import Oci

from gpuportion.simgpu import mig

pytestmark = [
    pytest.mark.containers,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: runs containers"),
]


@pytest.fixture(params=["runc", "crun"])
def oci(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Oci]:
    """Before a daemon whose one GPU, an RTX PRO 6000, serves by MIG."""
    if bundle.low_level(request.param) is None:
        pytest.skip(f"needs {request.param}")
    with MigDaemon(tmp_path / "daemon", "rtx-pro-6000-96gb") as daemon:
        made = Oci(tmp_path / "oci", request.param, daemon)
        try:
            yield made
        finally:
            made.delete()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path) -> None:
    (tmp_path / "daemon").mkdir()


def test_the_kernel_lets_in_one_instance(oci: Oci) -> None:
    """The nodes in its /dev, what its cgroup allows, and what is left when it is deleted."""
    assert isinstance(oci.daemon, MigDaemon)
    nothing = {"devices": [{"allow": False, "access": "rwm"}]}
    oci.write(request="GPU_MIG=2g.48gb-me", linux={"resources": nothing})
    oci.start()
    (found,) = mig.devices(oci.daemon.there.state)
    assert found.profile == "2g.48gb-me"
    nodes = Path(f"/proc/{oci.pid()}/root/dev")
    assert {node.name for node in nodes.glob("nvidia*")} == {
        "nvidia0",
        "nvidiactl",
        "nvidia-uvm",
        "nvidia-caps",
    }
    there = {node.name: node.stat() for node in (nodes / "nvidia-caps").iterdir()}
    assert {name: (os.major(one.st_rdev), os.minor(one.st_rdev)) for name, one in there.items()} == {
        f"nvidia-cap{minor}": (mig.MAJOR, minor) for minor in found.minors
    }
    assert {one.st_mode & 0o777 for one in there.values()} == {0o444}
    rules = Path(f"/sys/fs/cgroup/devices{oci.cgroup}/devices.list")
    if rules.exists():
        allowed = re.findall(rf"^c {mig.MAJOR}:(\S+) (\S+)$", rules.read_text(), re.MULTILINE)
        assert sorted(allowed) == sorted((str(minor), "r") for minor in found.minors)
    (state,) = oci.daemon.states()
    assert state.endswith(" in-use")
    oci.delete()
    oci.daemon.until(lambda: not oci.daemon.ps())
    assert [state.rpartition(" ")[2] for state in oci.daemon.states()] == ["idle"]
    assert oci.leftovers() == []


def test_a_container_that_is_refused_leaves_nothing(oci: Oci) -> None:
    """The sentence is in the log that an engine reads."""
    assert isinstance(oci.daemon, MigDaemon)
    oci.write(request="GPU_MIG=3g.40gb")
    assert oci.create().returncode != 0
    assert "GP103" in oci.said() and "2g.48gb" in oci.said()
    assert oci.leftovers() == [] and oci.daemon.states() == []
