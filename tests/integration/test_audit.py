"""What the audit finds in real containers: one that nobody granted anything, and one that gets past the library."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.support import images
from tests.support.node import CLIENT_COMMAND, IMAGE, Node
from tests.support.session import CudaSession

from gpuportion import client

pytestmark = pytest.mark.containers
GB = 10**9
REAL_DRIVER = "/.gpuportion/driver/libcuda.so.1"


def findings() -> list[dict[str, Any]]:
    found = client.ask("ps").head["findings"]
    assert isinstance(found, list)
    return found


@contextlib.contextmanager
def without_grant(node: Node, *options: str) -> Iterator[tuple[str, CudaSession]]:
    """A CUDA client in a container of plain runc that has the GPU, as from a CDI device: (name, client)."""
    sim = node.run_dir / "sim"
    nodes = [f"--device={sim}/dev/{name}:/dev/{name}" for name in ("nvidia0", "nvidiactl", "nvidia-uvm")]
    driver = [
        "-v",
        f"{sim}/state:/dev/gpuportion-sim",
        "-v",
        f"{sim}/lib:/driver:ro",
        "-e",
        "LD_LIBRARY_PATH=/driver",
    ]
    name = f"stranger-{os.getpid()}"
    flags = node._flags(None, name, "runc", [*nodes, *driver, *options])
    try:
        words = ["docker", "run", "-i", "--rm", *flags, IMAGE, *CLIENT_COMMAND]
        with CudaSession(words, env=node.engine.client_env) as session:
            yield name, session
    finally:
        node.docker("rm", "-f", name, check=False)


@pytest.mark.parametrize("options", [[], ["--pid=host"]], ids=["plain", "host-pids"])
def test_a_container_without_a_grant_is_named(node: Node, options: Sequence[str]) -> None:
    """By its id; what it holds cannot be granted, and both are over when it is."""
    free = node.free()
    with without_grant(node, *options) as (name, stranger):
        assert stranger.alloc(20 * GB) == "CUDA_SUCCESS"
        node.until(lambda: bool(findings()))
        (found,) = findings()
        assert (found["kind"], found["container"], found["engine"]) == (
            "stranger",
            node.container_id(name),
            "docker",
        )
        assert found["held"] >= 20 * GB
        node.until(lambda: node.free() <= free - 20 * GB)
        assert f"in container {found['container'][:12]} (docker) holds" in node.log.read_text()
    node.until(lambda: not findings() and node.free() == free)


def test_a_client_that_opens_the_real_driver_is_found_out(node: Node, tmp_path: Path) -> None:
    """It speaks to the driver by the path where that lies in the container: its grant is exceeded, and said so."""
    program = images.client(tmp_path, "bypass", "-ldl")
    mounted = ["-v", f"{program}:/bypass:ro"]
    command = ("/bypass", REAL_DRIVER)
    with node.session("1G", options=mounted, command=command) as past:
        assert past.opened == "CUDA_SUCCESS"
        assert past.alloc(3 * GB) == "CUDA_SUCCESS"
        node.until(lambda: bool(findings()))
        (found,) = findings()
        (row,) = node.ps()
        assert (found["kind"], found["container"]) == ("over", row["container"])
        assert found["held"] >= 3 * GB > found["limit"] == row["gpus"][0]["limit"]
        assert row["gpus"][0]["used"] < GB, "its ledger knows nothing of it"
    node.until(lambda: not findings())


def test_containers_that_keep_to_their_grants_are_no_finding(node: Node) -> None:
    """Full to the brim, with two processes and the context of each."""
    with node.container("2G") as name, node.exec_session(name) as one, node.exec_session(name) as two:
        for session in (one, two):
            while session.alloc(100 * 10**6) == "CUDA_SUCCESS":
                pass
        with without_grant(node) as (_, stranger):
            stranger.alloc(GB)
            node.until(lambda: bool(findings()))
            node.until(lambda: any(one["since_s"] > 2 for one in findings()))
            assert {found["kind"] for found in findings()} == {"stranger"}
