"""What a user reads when an allocation was refused: on the container's stderr, and from `gpuportion why`."""

from __future__ import annotations

import json
import re
import time

import pytest
from tests.support.node import MB, Node

pytestmark = pytest.mark.containers


def test_the_last_refusals_of_a_living_container_are_told(node: Node) -> None:
    """Who asked, by which call, for how much, what was in use and what was granted; in words and in JSON."""
    with node.container("1G") as name, node.exec_session(name) as one, node.exec_session(name) as two:
        assert one.alloc(200 * MB) == two.alloc(100 * MB) == "CUDA_SUCCESS"
        before = time.time()
        assert one.alloc(900 * MB) == "CUDA_ERROR_OUT_OF_MEMORY"
        assert two.ask("async", 950 * MB)["result"] == "CUDA_ERROR_OUT_OF_MEMORY"
        refusals = json.loads(node.gpuportion("why", name, "--json").stdout)["refusals"]
        table = node.gpuportion("why", name).stdout.splitlines()
        said = one.end()
    assert [(each["pid"], each["call"]) for each in refusals] == [
        (one.pid, "cuMemAlloc"),
        (two.pid, "cuMemAllocAsync"),
    ]
    for each, asked in zip(refusals, (900 * MB, 950 * MB), strict=True):
        assert asked <= each["asked"] < asked + 2 * (1 << 20)
        assert each["grant"] == 953 << 20 and each["used"] >= 300 * MB
        assert 0 <= each["age_s"] <= time.time() - before + 2
    assert table[0].split() == ["AGE", "GPU", "PID", "CALL", "ASKED", "USED", "GRANT"]
    assert len(table) == 3 and str(one.pid) in table[1].split()
    assert re.search(
        r"GP201 .* of this container's 953 MiB are in use \(pid \d+ \S+ \d+, pid \d+ \S+ \d+\)", said
    )


def test_refusals_are_said_once_a_second_and_all_are_counted(node: Node) -> None:
    """A program that tries again and again doesn't fill its log; the newest sixteen are kept."""
    with node.container("1G") as name, node.exec_session(name) as client:
        for _ in range(40):
            assert client.alloc(2000 * MB) == "CUDA_ERROR_OUT_OF_MEMORY"
        (row,) = node.ps()
        refusals = json.loads(node.gpuportion("why", name, "--json").stdout)["refusals"]
        said = client.end()
    assert row["refusals"] == 40 and len(refusals) == 16
    assert 1 <= said.count("GP201") < 40
