"""A driver that refuses, is late, or shows something else than the book: what becomes of the request and of the
instances."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path

import pytest
from tests.support.daemon import Sleeper
from tests.support.mig_daemon import FAULTS, MigDaemon

from gpuportion.errors import RefusedError
from gpuportion.simgpu import mig

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: MIG is changed by root alone")

FULL, BUSY, UNKNOWN, GONE, DENIED = 23, 19, 999, 6, 4
CREATE = "nvmlDeviceCreateGpuInstanceWithPlacement"


class FaultyDaemon(MigDaemon):
    """The daemon's NVML calls fail by these rules; those of `nvml` don't."""

    def __init__(
        self, folder: Path, faults: str, sim: str = "a100-40gb", options: tuple[str, ...] = ()
    ) -> None:
        super().__init__(folder, sim, options)
        self.env[FAULTS] = faults


def test_a_place_that_the_driver_refuses_is_planned_around(tmp_path: Path) -> None:
    """What it says of room is ambiguous: the next best place is tried."""
    with FaultyDaemon(tmp_path, f"{CREATE}@1-2={FULL}") as daemon:
        daemon.create("GPU_MIG=1g.5gb")
        assert daemon.states() == ["1g.5gb@5 in-use"] or daemon.states() == ["1g.5gb@4 in-use"]
        assert len(daemon.book()) == len(daemon.shown()) == 1


def test_a_board_that_refuses_every_place_is_full(tmp_path: Path) -> None:
    """GP101, and nothing is held or left in the book."""
    with FaultyDaemon(tmp_path, f"{CREATE}={FULL}") as daemon:
        with pytest.raises(RefusedError, match=r"GP101|GP306"):
            daemon.create("GPU_MIG=1g.5gb")
        assert daemon.book() == [] and daemon.shown() == [] and daemon.ps() == []


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (CREATE, UNKNOWN),
        (CREATE, DENIED),
        ("nvmlGpuInstanceCreateComputeInstance", FULL),
        ("nvmlGpuInstanceCreateComputeInstance", UNKNOWN),
        ("nvmlDeviceGetAttributes_v2", UNKNOWN),
    ],
)
def test_a_step_that_fails_is_rolled_back(tmp_path: Path, call: str, error: int) -> None:
    """GP306 says which and why; the next request is served."""
    with FaultyDaemon(tmp_path, f"{call}@1={error}") as daemon:
        with pytest.raises(
            RefusedError, match=r"GP306 making the MIG instance 1g.5gb on GPU 0 failed: .*Nothing is held"
        ):
            daemon.create("GPU_MIG=1g.5gb")
        assert daemon.book() == [] and daemon.shown() == [] and daemon.ps() == []
        daemon.create("GPU_MIG=1g.5gb")
        assert daemon.states() == ["1g.5gb@6 in-use"]


@pytest.mark.parametrize("call", ["nvmlComputeInstanceDestroy", "nvmlGpuInstanceDestroy"])
def test_a_removal_is_tried_again_while_the_driver_says_in_use(tmp_path: Path, call: str) -> None:
    """As it does for a second after the last client: what is asked for then still gets the room."""
    with FaultyDaemon(tmp_path, f"{call}@1-3={BUSY}") as daemon:
        with Sleeper() as container:
            daemon.confirm(daemon.create("GPU_MIG=7g.40gb").token, container)
        daemon.until(lambda: not daemon.ps())
        daemon.create("GPU_MIG=1g.5gb")
        assert daemon.states() == ["1g.5gb@6 in-use"]


def test_half_of_an_instance_is_found_again_and_removed(tmp_path: Path) -> None:
    """A GPU instance without its compute instance: it is no room and no gift, until it is gone."""
    with FaultyDaemon(tmp_path, f"nvmlGpuInstanceDestroy@1-9={BUSY}") as daemon:
        with Sleeper() as container:
            daemon.confirm(daemon.create("GPU_MIG=4g.20gb").token, container)
        daemon.until(lambda: not daemon.ps())
        (kept,) = daemon.ask("mig-gc").head["kept"]
        assert "in use by another client" in kept["why"].lower()
        assert daemon.states() == ["4g.20gb@0 removing"] and daemon.nvml.ask("computes(1, 3)") == []
        daemon.until(lambda: daemon.shown() == [])
        daemon.until(lambda: daemon.book() == [])
        daemon.create("GPU_MIG=4g.20gb")


def test_what_could_not_be_rolled_back_is_removed_later(tmp_path: Path) -> None:
    """The half that is left is in the book."""
    faults = f"nvmlGpuInstanceCreateComputeInstance@1={UNKNOWN},nvmlGpuInstanceDestroy@1={UNKNOWN}"
    with FaultyDaemon(tmp_path, faults) as daemon:
        with pytest.raises(RefusedError, match=r"GP306 .*could not be undone"):
            daemon.create("GPU_MIG=1g.5gb")
        assert daemon.states() == ["1g.5gb@6 removing"]
        daemon.until(lambda: daemon.book() == [] and daemon.shown() == [])


def test_others_are_served_while_an_instance_is_made(tmp_path: Path) -> None:
    """The one that waits gets its answer when it is there."""
    with FaultyDaemon(tmp_path, f"{CREATE}@1+1500000us") as daemon:
        told: list[str] = []
        slow = threading.Thread(target=lambda: told.append(daemon.create("GPU_MIG=2g.10gb", id="slow").token))
        slow.start()
        daemon.until(lambda: daemon.states() == ["2g.10gb@4 making"])
        assert [row["container"] for row in daemon.ps()] == ["slow"]
        assert daemon.ask("ping").head["ready"] and not told
        slow.join()
        assert told and daemon.states() == ["2g.10gb@4 in-use"]


def test_two_gpus_are_changed_at_once(tmp_path: Path) -> None:
    """Each has a thread; and what is asked for meanwhile on one of them comes after it."""
    with FaultyDaemon(tmp_path, f"{CREATE}+700000us", "a100-40gb:2") as daemon:
        asked = [("GPU_MIG=4g.20gb", k) for k in range(2)] + [("GPU_MIG=3g.20gb", k) for k in (2, 3)]
        threads = [
            threading.Thread(target=daemon.create, args=(what,), kwargs={"id": f"c{k}"}) for what, k in asked
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(daemon.states()) == ["3g.20gb@4 in-use"] * 2 + ["4g.20gb@0 in-use"] * 2


def test_a_driver_that_takes_too_long_is_given_up(tmp_path: Path) -> None:
    """The request is refused with a sentence; what the driver makes in the end is kept for the next one."""
    with FaultyDaemon(tmp_path, f"{CREATE}@1+3000000us", options=("--mig-timeout", "1")) as daemon:
        with pytest.raises(RefusedError, match=r"GP306 making the MIG instance 1g.5gb on GPU 0 .* in 1 s"):
            daemon.create("GPU_MIG=1g.5gb")
        assert daemon.ps() == []
        assert "has not ended in 1 s" in daemon.gpus()[0]["health"]
        with pytest.raises(RefusedError, match=r"GP302 .*has not ended in 1 s"):
            daemon.create("GPU_MIG=1g.5gb")
        daemon.until(lambda: daemon.states() == ["1g.5gb@6 idle"])
        uuid = daemon.instances()[0]["uuid"]
        daemon.create("GPU_MIG=1g.5gb")
        assert [one["uuid"] for one in daemon.instances()] == [uuid]


def test_a_creator_that_ends_while_its_instance_is_made_leaves_it_idle(tmp_path: Path) -> None:
    """Nothing is held for one who is gone."""
    with FaultyDaemon(tmp_path, f"{CREATE}@1+1000000us") as daemon:
        pid = os.fork()
        if pid == 0:
            try:
                daemon.create("GPU_MIG=1g.5gb")
            finally:
                os._exit(0)
        daemon.until(lambda: daemon.states() == ["1g.5gb@6 making"])
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        daemon.until(lambda: not daemon.ps())
        daemon.until(lambda: daemon.states() == ["1g.5gb@6 idle"])


def test_what_others_made_since_the_last_sample_is_noticed(tmp_path: Path) -> None:
    """The driver refuses the place, and the next best one is taken."""
    with MigDaemon(tmp_path) as daemon:
        for start in (6, 4):
            daemon.nvml.ask(f"create(19, {start})")
        daemon.create("GPU_MIG=1g.5gb")
        assert [one["start"] for one in daemon.instances() if one["ours"]] == [5]


def test_an_instance_that_somebody_removed_is_forgotten(tmp_path: Path) -> None:
    """Even where it is asked for before the next sample: another is made."""
    with MigDaemon(tmp_path) as daemon:
        with Sleeper() as container:
            daemon.confirm(daemon.create("GPU_MIG=1g.5gb").token, container)
        daemon.until(lambda: not daemon.ps())
        uuid = daemon.instances()[0]["uuid"]
        daemon.nvml.ask("clear()")
        daemon.create("GPU_MIG=1g.5gb")
        (one,) = daemon.instances()
        assert one["state"] == "in-use" and one["uuid"] != uuid and len(daemon.shown()) == 1


def test_the_same_ids_with_another_uuid_are_not_ours(tmp_path: Path) -> None:
    """Somebody made it again while there was no daemon: it is left alone for ever."""
    with MigDaemon(tmp_path) as daemon:
        with Sleeper() as container:
            daemon.confirm(daemon.create("GPU_MIG=2g.10gb").token, container)
        daemon.until(lambda: not daemon.ps())
        before = daemon.shown()
        daemon.kill()
        daemon.nvml.ask("clear()")
        daemon.nvml.ask("create(14, 4)")
        daemon.nvml.ask(f"compute({before[0][0]}, 1)")
        assert daemon.shown() == before
        daemon.start()
        daemon.until(lambda: daemon.states() == ["2g.10gb@4 foreign"])
        assert daemon.book() == []
        assert daemon.ask("mig-gc").head["removed"] == [] and daemon.shown() == before


def test_after_a_reset_nothing_is_assumed(tmp_path: Path) -> None:
    """The instances are gone, and so are the records."""
    with MigDaemon(tmp_path) as daemon:
        with Sleeper() as container:
            daemon.confirm(daemon.create("GPU_MIG=2g.10gb").token, container)
        daemon.until(lambda: not daemon.ps())
        daemon.stop()
        daemon.nvml.__exit__()
        mig.reset(daemon.there.state, 0)
        daemon.nvml = type(daemon.nvml)(daemon.there)
        daemon.start()
        daemon.until(lambda: daemon.book() == [])
        daemon.create("GPU_MIG=2g.10gb")
        assert daemon.states() == ["2g.10gb@4 in-use"]


def test_records_of_another_boot_are_dropped(tmp_path: Path) -> None:
    """What lies there now is somebody else's, however alike."""
    with MigDaemon(tmp_path) as daemon:
        with Sleeper() as container:
            daemon.confirm(daemon.create("GPU_MIG=2g.10gb").token, container)
        daemon.until(lambda: not daemon.ps())
        daemon.stop()
        path = daemon.state_dir / "mig.json"
        kept = json.loads(path.read_text())
        kept["records"][0]["boot"] = "another"
        path.write_text(json.dumps(kept))
        daemon.start()
        assert daemon.book() == []
        daemon.until(lambda: daemon.states() == ["2g.10gb@4 foreign"])


def test_a_book_that_cannot_be_read_removes_nothing(tmp_path: Path) -> None:
    """It is put aside; the instances are left to themselves."""
    with MigDaemon(tmp_path) as daemon:
        daemon.create("GPU_MIG=2g.10gb")
        daemon.kill()
        (daemon.state_dir / "mig.json").write_text("{")
        daemon.start()
        daemon.until(lambda: daemon.states() == ["2g.10gb@4 foreign"])
        assert (daemon.state_dir / "mig.json.broken").read_text() == "{"
        assert "left to themselves" in daemon.log.read_text()


def test_grants_and_idle_instances_live_through_a_restart(tmp_path: Path) -> None:
    """Whether it was stopped or killed; since when one is idle is known, too."""
    with MigDaemon(tmp_path) as daemon:
        with Sleeper() as other:
            daemon.confirm(daemon.create("GPU_MIG=1g.5gb", id="b").token, other)
        daemon.until(lambda: not daemon.ps())
        with Sleeper() as container:
            daemon.confirm(daemon.create("GPU_MIG=2g.10gb", id="a").token, container)
            for end in (daemon.stop, daemon.kill):
                before = [(row["token"], row["mig"], row["state"]) for row in daemon.ps()]
                idle = daemon.instances()[1]["idle_s"]
                end()
                time.sleep(0.2)
                daemon.start()
                assert [(row["token"], row["mig"], row["state"]) for row in daemon.ps()] == before
                daemon.until(lambda: daemon.states() == ["2g.10gb@4 in-use", "1g.5gb@6 idle"])
                assert daemon.instances()[1]["idle_s"] >= idle
            daemon.kill()
        daemon.start()
        daemon.until(lambda: daemon.states() == ["2g.10gb@4 idle", "1g.5gb@6 idle"])
