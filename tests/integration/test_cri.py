"""Pods over containerd's CRI socket, as kubelet makes them: runtime handler gpuportion, with runc and with crun."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from tests.support import bundle, engines
from tests.support.containerd import PrivateContainerd
from tests.support.cri import CriError
from tests.support.node import MB, PYTHON, Node

pytestmark = pytest.mark.containers

pytest.importorskip("grpc", reason="needs grpcio (pip install --group dev)")

SLEEP: Final = ("/usr/bin/sleep", "3600")
LIMIT: Final = "gpuportion.io/memory-limit"
ALLOCATIONS: Final = f"printf 'alloc {600 * MB}\\nalloc {600 * MB}\\nend\\n' | {PYTHON} /client.py"
NUMBERS: Final = itertools.count()


@pytest.fixture(scope="module")
def loaded(running_node: Node, root_tar: Path, short_folder: Path) -> Iterator[PrivateContainerd]:
    """A containerd that was told of us by `gpuportion install` and has the image, not running."""
    if reason := engines.missing("containerd", "ctr"):
        pytest.skip(reason)
    containerd = PrivateContainerd(short_folder / "cri")
    try:
        containerd.start(os.environ)
        containerd.load(root_tar)
        containerd.stop()
        containerd.install(running_node.env)
        yield containerd
    finally:
        containerd.remove()


@pytest.fixture(scope="module", params=["runc", "crun"])
def containerd(
    request: pytest.FixtureRequest,
    loaded: PrivateContainerd,
    running_node: Node,
    short_folder: Path,
    root_folder: Path,
) -> Iterator[PrivateContainerd]:
    """It again, running before one low-level runtime."""
    if bundle.low_level(request.param) is None:
        pytest.skip(f"needs {request.param}")
    folder = short_folder / f"cri-{request.param}"
    folder.mkdir()
    low_level = engines.low_level(folder, request.param)
    env = {**running_node.env, "GPUPORTION_WAIT_S": "3", "GPUPORTION_RUNTIME": low_level}
    try:
        loaded.start(env)
        if reason := engines.Ctr(loaded, root_folder, low_level).objection(low_level):
            pytest.skip(reason)
        yield loaded
    finally:
        loaded.stop()


@contextmanager
def pod(
    containerd: PrivateContainerd, annotations: Mapping[str, str] | None = None
) -> Iterator[tuple[str, dict[str, Any]]]:
    made = containerd.run_pod(f"pod-{os.getpid()}-{next(NUMBERS)}", annotations or {})
    try:
        yield made
    finally:
        containerd.remove_pod(made)


@pytest.mark.parametrize("way", ["annotation of the pod", "env of the container"])
def test_a_container_of_a_pod_is_held_to_its_grant(
    containerd: PrivateContainerd, node: Node, way: str
) -> None:
    """Also what joins later; the pod's own process has no grant; nothing is left when the pod is removed."""
    asked = {LIMIT: "1G"} if way.startswith("annotation") else {}
    with pod(containerd, asked) as made:
        assert not node.ps()
        env = {} if asked else {"GPU_MEMORY_LIMIT": "1G"}
        container = containerd.start_container(made, env, *SLEEP)
        out, errors = containerd.execute(container, "/usr/bin/sh", "-c", ALLOCATIONS)
        (row,) = node.ps()
        assert row["container"] == container
        results = [line.split('"result": "')[1].split('"')[0] for line in out.splitlines()[1:]]
        assert results == ["CUDA_SUCCESS", "CUDA_ERROR_OUT_OF_MEMORY"]
        assert "GP201" in errors
    node.until(lambda: not node.ps())
    node.until(lambda: not list((node.run_dir / "grants").iterdir()))
    assert str(node.run_dir / "grants") not in Path("/proc/mounts").read_text()


def test_kubelet_is_told_why_a_container_was_refused(containerd: PrivateContainerd, node: Node) -> None:
    """The sentence is in the event of the pod, and the next container may start."""
    with pod(containerd) as made:
        with pytest.raises(CriError) as refused:
            containerd.start_container(made, {"GPU_MEMORY_LIMIT": "4000"}, *SLEEP)
        assert "GP102 GPU_MEMORY_LIMIT=4000 has no unit. Write 4000M, 4G or 4Gi." in str(refused.value)
        assert not node.ps()


def test_a_pod_without_a_request_has_no_grant(containerd: PrivateContainerd, node: Node) -> None:
    """Under our handler, too."""
    with pod(containerd, {"example.org/other": "1"}) as made:
        container = containerd.start_container(made, {}, *SLEEP)
        assert not node.ps()
        out, _ = containerd.execute(container, "/usr/bin/ls", "-a", "/")
        assert ".gpuportion" not in out.split()


def test_a_command_that_is_not_there_leaves_no_grant(containerd: PrivateContainerd, node: Node) -> None:
    """The low-level runtime refuses after the reservation."""
    with pod(containerd, {LIMIT: "1G"}) as made:
        with pytest.raises(CriError, match="does-not-exist"):
            containerd.start_container(made, {}, "/does-not-exist")
        node.until(lambda: not node.ps())
