"""podman's monitor killed under a container: nobody tells of its end any more, and the grant ends with it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support import bundle, engines
from tests.support.engines import Podman
from tests.support.node import Node

pytestmark = pytest.mark.containers


@pytest.fixture(scope="module", params=["runc", "crun"])
def podman(
    request: pytest.FixtureRequest, running_node: Node, root_folder: Path, short_folder: Path
) -> Iterator[Podman]:
    low_level = request.param
    reason = engines.missing("podman", "conmon") or (
        bundle.low_level(low_level) is None and f"needs {low_level}"
    )
    if reason:
        pytest.skip(reason)
    folder = short_folder / f"conmon-{low_level}"
    folder.mkdir()
    made = Podman(folder, root_folder, engines.launcher(folder, running_node, low_level))
    if objection := made.objection(engines.low_level(folder, low_level)):
        pytest.skip(objection)
    yield made


def test_a_container_without_its_conmon_keeps_its_grant_until_it_ends(node: Node, podman: Podman) -> None:
    """podman shows it as up for ever and calls no delete, not even for `rm --force`; the pidfd tells."""
    name = f"gpuportion-conmon-{os.getpid()}-{podman.folder.name}"
    whole = podman.options(memory=f"{node.free() >> 20}Mi")
    with podman.container(name, whole):
        ids = podman.command("inspect", "--format={{.State.ConmonPid}} {{.State.Pid}}", name)
        conmon, init = map(int, podman.done(ids).stdout.split())
        (before,) = node.ps()
        os.kill(conmon, signal.SIGKILL)
        node.until(lambda: not Path(f"/proc/{conmon}/fd/0").exists())
        assert [row["token"] for row in node.ps()] == [before["token"]]
        os.kill(init, signal.SIGKILL)
        node.until(lambda: not node.ps())
        with podman.container(f"{name}-2", whole):
            assert len(node.ps()) == 1
    node.until(lambda: not node.ps() and not list((node.run_dir / "grants").iterdir()))


def test_one_name_under_podman_and_docker_is_two_containers(node: Node, podman: Podman) -> None:
    """Each engine's has its grant, and the end of one is not the other's."""
    name = f"gpuportion-both-{os.getpid()}"
    half = f"{node.free() // 2 >> 20}Mi"
    with node.container(half, name=name):
        (dockers,) = node.ps()
        with podman.container(name, podman.options(memory=half)):
            assert len(node.ps()) == 2
        node.until(lambda: len(node.ps()) == 1)
        assert [row["token"] for row in node.ps()] == [dockers["token"]]
