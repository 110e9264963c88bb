"""MIG grants by the protocol: an instance is made for a request, kept idle after it, reused, evicted."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.simgpu.driver import driver
from tests.support.daemon import Sleeper
from tests.support.mig_daemon import MigDaemon

from gpuportion.errors import RefusedError

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: MIG is changed by root alone")


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[MigDaemon]:
    """One A100 with 40 GB."""
    with MigDaemon(tmp_path) as running:
        yield running


@pytest.mark.parametrize(
    ("board", "served"),
    [
        ("a100-40gb", [("GPU_MEMORY_LIMIT=4G", "1g.5gb@6"), ("GPU_MEMORY_LIMIT=10G", "1g.10gb@4"),
                       ("GPU_COMPUTE=30", "3g.20gb@0")]),
        ("a100-40gb", [("GPU_FRACTION=0.5", "3g.20gb@4"), ("GPU_ROLE=mig GPU_FRACTION=0.5", "3g.20gb@0")]),
        ("h100-80gb", [("GPU_COUNT=1", "7g.80gb@0")]),
        ("h100-80gb", [("GPU_MIG=2g.20gb", "2g.20gb@4"), ("GPU_MIG=1g.10gb+me", "1g.10gb+me@6")]),
        ("a30-24gb", [("GPU_MEMORY_LIMIT=10G", "2g.12gb@0"), ("GPU_MEMORY_LIMIT=4G", "1g.6gb@2")]),
        ("rtx-pro-6000-96gb", [("GPU_MEMORY_LIMIT=30G", "2g.48gb@0"), ("GPU_MIG=1g.24gb-me", "1g.24gb-me@6")]),
    ],
)  # fmt: skip
def test_the_smallest_instance_is_made(tmp_path: Path, board: str, served: list[tuple[str, str]]) -> None:
    """Where it spoils least; and what is listed is what NVML shows."""
    with MigDaemon(tmp_path, board) as daemon:
        for number, (asked, _) in enumerate(served):
            daemon.create(*asked.split(), id=f"c{number}")
        assert sorted(daemon.states()) == sorted(f"{place} in-use" for _, place in served)
        listed = daemon.instances()
        assert sorted([one["gi"], one["start"], one["size"]] for one in listed) == [
            [gi, start, size] for gi, _, start, size in daemon.shown()
        ]
        by_uuid = daemon.nvml.ask(
            "[[n.nvmlDeviceGetUUID(mig(k)), n.nvmlDeviceGetMemoryInfo(mig(k)).total] "
            f"for k in range({len(served)})]"
        )
        assert sorted(by_uuid) == sorted([one["uuid"], one["memory"]] for one in listed)


def test_a_grant_is_an_instance_from_reservation_to_release(daemon: MigDaemon) -> None:
    """It has no pages; afterwards the instance stays, idle."""
    granted = daemon.create("GPU_MEMORY_LIMIT=10G", id="one")
    assert granted.spec is not None and daemon.folders() == set()
    assert any(node["path"].startswith("/dev/nvidia-caps/") for node in granted.spec["linux"]["devices"])
    with Sleeper() as container:
        daemon.confirm(granted.token, container)
        (row,) = daemon.ps()
        (gpu,) = daemon.gpus()
        assert (row["enforced_by"], row["compute"], row["mig"]["profile"]) == ("mig", 14, "1g.10gb")
        assert row["mig"]["uuid"] == daemon.nvml.ask("n.nvmlDeviceGetUUID(mig(0))")
        assert row["gpus"][0]["limit"] == gpu["granted"] == 9856 << 20
        assert (gpu["role"], gpu["mig"], gpu["health"], gpu["free"]) == ("mig", "1g.10gb", "ok", 19968 << 20)
        assert daemon.ask("why", container="one").head["count"] == 0
        with pytest.raises(RefusedError, match=r"GP111 .* MIG instance 1g.10gb of GPU 0; the size"):
            daemon.ask("update", container="one", memory="12G")
    daemon.until(lambda: not daemon.ps())
    assert daemon.states() == ["1g.10gb@6 idle"] and daemon.shown() == [[6, 15, 6, 2]]
    assert daemon.gpus()[0]["mig"] == "1g.10gb idle"


def test_what_is_in_use_of_an_instance_is_shown(daemon: MigDaemon) -> None:
    """By what NVML says of it: nothing of ours is in the container."""
    granted = daemon.create("GPU_MIG=1g.5gb")
    with (
        Sleeper() as container,
        driver(daemon.there, CUDA_VISIBLE_DEVICES=daemon.instances()[0]["uuid"]) as cuda,
    ):
        daemon.confirm(granted.token, container)
        cuda.open()
        daemon.until(lambda: daemon.ps()[0]["gpus"][0]["used"] >= 200 << 20)
        assert daemon.instances()[0]["processes"] == [cuda.process.pid]


def test_an_idle_instance_is_reused_by_an_exact_match(daemon: MigDaemon) -> None:
    """The same instance, not another one of the kind; a request for another profile gets one of its own."""
    for _ in range(3):
        with Sleeper() as container:
            daemon.confirm(daemon.create("GPU_MEMORY_LIMIT=4G").token, container)
            uuid = daemon.ps()[0]["mig"]["uuid"]
        daemon.until(lambda: not daemon.ps())
        assert [one["uuid"] for one in daemon.instances()] == [uuid]
    with Sleeper() as container:
        daemon.confirm(daemon.create("GPU_MIG=2g.10gb").token, container)
        assert daemon.states() == ["2g.10gb@4 in-use", "1g.5gb@6 idle"]


def test_idle_instances_go_when_their_room_is_needed_and_no_others(daemon: MigDaemon) -> None:
    """The fewest, of those the one that has been idle the longest; what is in use stays."""
    with ExitStack() as stack:
        used = [stack.enter_context(Sleeper()) for _ in range(2)]
        tokens = [daemon.create("GPU_MIG=3g.20gb", id=f"c{k}").token for k in range(2)]
        for token, container in zip(tokens, used, strict=True):
            daemon.confirm(token, container)
        with pytest.raises(RefusedError, match=r"(?s)GP101 .*In use on GPU 0: c[01] 3g.20gb, c[01] 3g.20gb"):
            daemon.create("GPU_MIG=1g.5gb", id="late")
        used[1].end()
        daemon.until(lambda: len(daemon.ps()) == 1)
        assert sorted(daemon.states()) == ["3g.20gb@0 idle", "3g.20gb@4 in-use"]
        daemon.create("GPU_MIG=2g.10gb", id="late")
        assert [state for state in daemon.states() if "idle" in state] == []
        assert "3g.20gb@4 in-use" in daemon.states()


def test_instances_of_others_are_not_touched(daemon: MigDaemon) -> None:
    """Not reused, not evicted, not collected; their room is not planned with."""
    daemon.nvml.ask("create(9, 4)")
    daemon.nvml.ask("compute(1, 2)")
    daemon.until(lambda: daemon.states() == ["3g.20gb@4 foreign"])
    assert daemon.instances()[0]["uuid"] == daemon.nvml.ask("n.nvmlDeviceGetUUID(mig(0))")
    daemon.create("GPU_MIG=3g.20gb")
    assert daemon.states() == ["3g.20gb@0 in-use", "3g.20gb@4 foreign"]
    with pytest.raises(RefusedError, match=r"(?s)GP101 .*others 3g.20gb"):
        daemon.create("GPU_MIG=1g.5gb", id="late")
    assert daemon.ask("mig-gc").head == {"removed": [], "kept": []}
    assert [each[2] for each in daemon.shown()] == [4, 0]


def test_idle_instances_are_collected_at_once(daemon: MigDaemon) -> None:
    """Those that nobody has, and by root alone."""
    with Sleeper() as container:
        daemon.confirm(daemon.create("GPU_MIG=1g.5gb", id="a").token, container)
        with Sleeper() as other:
            daemon.confirm(daemon.create("GPU_MIG=2g.10gb", id="b").token, other)
        daemon.until(lambda: len(daemon.ps()) == 1)
        answer = daemon.ask("mig-gc").head
        assert [one["profile"] for one in answer["removed"]] == ["2g.10gb"] and answer["kept"] == []
        assert daemon.states() == ["1g.5gb@6 in-use"] and len(daemon.shown()) == 1
    daemon.until(lambda: not daemon.ps())
    assert len(daemon.ask("mig-gc").head["removed"]) == 1
    assert daemon.shown() == [] and daemon.book() == []


def test_an_idle_instance_with_a_process_on_it_is_neither_reused_nor_removed(daemon: MigDaemon) -> None:
    """It is kept until the process has gone."""
    with Sleeper() as container:
        daemon.confirm(daemon.create("GPU_MIG=3g.20gb").token, container)
    daemon.until(lambda: not daemon.ps())
    uuid = daemon.instances()[0]["uuid"]
    with driver(daemon.there, CUDA_VISIBLE_DEVICES=uuid) as cuda:
        cuda.open()
        (kept,) = daemon.ask("mig-gc").head["kept"]
        assert kept["uuid"] == uuid and f"pid {cuda.process.pid}" in kept["why"]
        daemon.create("GPU_MIG=3g.20gb", id="another")
        assert daemon.states() == ["3g.20gb@0 in-use", "3g.20gb@4 idle"]
        with pytest.raises(RefusedError, match=r"(?s)GP101 .*processes without a grant 3g.20gb"):
            daemon.create("GPU_MIG=1g.5gb", id="third")
    daemon.until(lambda: daemon.instances()[1]["processes"] == [])
    daemon.create("GPU_MIG=1g.5gb", id="third")
    assert daemon.states() == ["3g.20gb@0 in-use", "1g.5gb@6 in-use"]


def test_an_idle_instance_goes_after_its_time(tmp_path: Path) -> None:
    """Where the administrator says so: mig.max-idle."""
    config = tmp_path / "config.yaml"
    config.write_text("mig: {max-idle: 1s}\n")
    with MigDaemon(tmp_path, options=["--config", str(config)]) as daemon:
        with Sleeper() as container:
            daemon.confirm(daemon.create("GPU_MIG=1g.5gb").token, container)
            assert daemon.states() == ["1g.5gb@6 in-use"]
        daemon.until(lambda: daemon.shown() == [])
        daemon.until(lambda: daemon.book() == [])


def test_what_a_node_offers_is_listed(daemon: MigDaemon) -> None:
    """With how many more of each there is room for; idle instances are room."""
    with Sleeper() as container:
        daemon.confirm(daemon.create("GPU_MIG=3g.20gb").token, container)
        (gpu,) = daemon.ask("mig-profiles").head["gpus"]
        rooms = {row["name"]: row["room"] for row in gpu["profiles"]}
        assert rooms == {
            "1g.5gb": 4,
            "1g.5gb+me": 1,
            "1g.10gb": 2,
            "2g.10gb": 2,
            "3g.20gb": 1,
            "4g.20gb": 1,
            "7g.40gb": 0,
        }
    daemon.until(lambda: not daemon.ps())
    (gpu,) = daemon.ask("mig-profiles").head["gpus"]
    assert {row["room"] for row in gpu["profiles"] if row["name"] == "7g.40gb"} == {1}


NEVER = [
    (
        ["GPU_MIG=2g.20gb"],
        r"GP103 unknown MIG profile \"2g.20gb\" on NVIDIA A100-SXM4-40GB. Available: 1g.5gb",
    ),
    (
        ["GPU_MIG=2g.10gb", "GPU_MEMORY_LIMIT=16G"],
        "GP104 GPU_MIG=2g.10gb conflicts with GPU_MEMORY_LIMIT=16G",
    ),
    (["GPU_MEMORY_LIMIT=60G"], "GP105 .* has 60.00 GB .*; the largest is 7g.40gb with 40192 MiB"),
    (["GPU_MEMORY_LIMIT=4G,4G"], "GP107 GPU_COUNT=2 is more than the one MIG portion"),
    (["GPU_MEMORY_LIMIT=4G", "GPU_ROLE=fraction"], "GP109 a fraction of a GPU cannot be served"),
    (["GPU_MEMORY_LIMIT=4G", "GPU_SELECT=*H100*"], r"GP107 GPU_SELECT=\*H100\* matches no GPU of this node"),
]


def test_what_can_never_be_served_is_said_at_once(daemon: MigDaemon) -> None:
    """And nothing is made or held."""
    for asked, refusal in NEVER:
        with pytest.raises(RefusedError, match=refusal):
            daemon.create(*asked)
    assert daemon.shown() == [] and daemon.book() == [] and daemon.ps() == []


def test_a_memory_request_is_served_by_whichever_role_has_room(tmp_path: Path) -> None:
    """A fraction first; by MIG if none has room, if a profile or compute is asked for, or if the role is pinned."""
    with MigDaemon(tmp_path, "a100-40gb:2", fractions=[0]) as daemon:
        assert [gpu["role"] for gpu in daemon.gpus()] == ["fraction", "mig"]

        def way(*asked: str, id: str) -> str:
            daemon.create(*asked, id=id)
            return next(str(row["enforced_by"]) for row in daemon.ps() if row["container"] == id)

        assert way("GPU_MEMORY_LIMIT=30G", id="a") == "interposer"
        assert way("GPU_MEMORY_LIMIT=20G", id="b") == "mig"
        assert way("GPU_MEMORY_LIMIT=1G", id="c") == "interposer"
        assert way("GPU_MEMORY_LIMIT=1G", "GPU_ROLE=mig", id="d") == "mig"
        assert way("GPU_MIG=1g.5gb", id="e") == "mig"
        assert way("GPU_COMPUTE=10", id="f") == "mig"
        with pytest.raises(RefusedError, match=r"(?s)GP101 .*The other way: GPU 1 has no place for that"):
            daemon.create("GPU_MEMORY_LIMIT=19G", id="g")


def test_rules_for_users_count_what_an_instance_has(tmp_path: Path) -> None:
    """Not what was asked for."""
    config = tmp_path / "config.yaml"
    config.write_text("user: {max-memory: 12G}\n")
    with MigDaemon(tmp_path, options=["--config", str(config)]) as daemon:
        daemon.create("GPU_MEMORY_LIMIT=4G", id="a")
        daemon.create("GPU_MEMORY_LIMIT=4G", id="b")
        with pytest.raises(RefusedError, match=r"(?s)GP110 .*user.max-memory"):
            daemon.create("GPU_MEMORY_LIMIT=4G", id="c")
        assert len(daemon.shown()) == 2
