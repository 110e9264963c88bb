"""`gpuportion update` on a container that docker runs: felt inside by processes that were there before."""

from __future__ import annotations

import json

import pytest
from tests.support.node import MB, Node

pytestmark = pytest.mark.containers


def test_a_running_container_gets_more_and_less(node: Node) -> None:
    """By the container's name; total, free and the next allocation follow, and nothing that is held is lost."""
    with node.container("1G") as name, node.exec_session(name) as client:
        assert client.alloc(600 * MB) == "CUDA_SUCCESS"
        assert client.alloc(600 * MB) == "CUDA_ERROR_OUT_OF_MEMORY"
        (refusal,) = json.loads(node.gpuportion("why", name, "--json").stdout)["refusals"]
        assert refusal["pid"] > 0 and refusal["asked"] >= 600 * MB
        free = node.free()
        node.gpuportion("update", name, "--gpu-memory", "2G")
        grown = 2 * 10**9 // (1 << 20) * (1 << 20)
        assert client.ask("info")["total"] == client.ask("nvml")["total"] == grown
        assert node.free() == free - grown + 10**9 // (1 << 20) * (1 << 20)
        assert client.alloc(600 * MB) == "CUDA_SUCCESS"
        node.gpuportion("update", name, "--gpu-memory", "500M", "--force")
        assert client.alloc(1) == "CUDA_ERROR_OUT_OF_MEMORY"
        assert client.ask("free", 0)["result"] == client.ask("free", 1)["result"] == "CUDA_SUCCESS"
        assert client.alloc(50 * MB) == "CUDA_SUCCESS"
