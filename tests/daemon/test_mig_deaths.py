"""A daemon that is killed at each step of its work on MIG instances, again and again over the same files: the next one
makes book and driver agree, nothing leaks, and what others made and what a container has stay as they are."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.daemon import Sleeper
from tests.support.mig_daemon import FAULTS, PLACES, MigDaemon

from gpuportion import wire
from gpuportion.allocator.fault_points import VARIABLE
from gpuportion.errors import RefusedError

LONG = os.environ.get("GPUPORTION_TEST_LONG") == "1"
KILLS = 300 if LONG else len(PLACES) + 3
ASKED = ("1g.5gb", "1g.10gb", "2g.10gb", "3g.20gb", "4g.20gb")
FAILING = ("mig-rolling-back", "mig-given-up")
"""Places that are come to only where the driver fails at a step."""
FAULTY = "nvmlGpuInstanceCreateComputeInstance@2-9=999"

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: MIG is changed by root alone")


class Died(Exception):
    """The daemon is not there any more, as it was told."""


class DyingDaemon(MigDaemon):
    """One that is told where to die; what is asked of it then ends in Died."""

    def start_to_die_at(self, place: str) -> None:
        faulty = {FAULTS: FAULTY} if place.partition(":")[0] in FAILING else {}
        before = dict(self.env)
        self.env |= {VARIABLE: place, **faulty}
        self.process = self.spawn()
        self.env = before

    def ask(self, op: str, **values: Any) -> wire.Message:
        try:
            return super().ask(op, **values)
        except (OSError, wire.ProtocolError):
            assert self.process is not None
            self.process.wait(timeout=30)  # it may be just dying; one that does not had no reason to hang up
            raise Died from None

    def _answers(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise Died
        try:
            return bool(super().ask("ping").head["ready"])
        except (OSError, wire.ProtocolError):
            return False

    def has_died(self) -> bool:
        assert self.process is not None
        return self.process.wait(timeout=60) == -signal.SIGKILL

    def agrees(self) -> bool:
        """Whether the book has exactly what the driver shows and others did not make, and none of it is half done."""
        rows = self.instances()
        ours = sorted(row["gi"] or -1 for row in rows if row["ours"])
        shown = sorted(each[0] for each in self.shown())
        foreign = sorted(row["gi"] for row in rows if not row["ours"])
        states = {row["state"] for row in rows}
        return sorted(ours + foreign) == shown and not states & {"making", "removing"} and len(foreign) == 1

    def work(self, luck: random.Random) -> None:
        """Containers come and go, idle instances are collected; until Died."""
        for _ in range(200):
            if luck.random() < 0.25:
                self.ask("mig-gc")
            with Sleeper() as container:
                try:
                    self.confirm(self.create(f"GPU_MIG={luck.choice(ASKED)}", id="one").token, container)
                except RefusedError as refused:
                    assert refused.code in ("GP101", "GP306", "GP305"), refused.text
            self.until(lambda: all(row["container"] != "one" for row in self.ps()))
        raise AssertionError(f"it has not died: {self.tail()}")


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[DyingDaemon]:
    """An A100 of which somebody else has a slice, and a container another."""
    with DyingDaemon(tmp_path, options=("--reservation-timeout", "20")) as daemon:
        daemon.nvml.ask("create(19, 0)")
        daemon.nvml.ask("compute(7, 0)")
        yield daemon


def test_a_daemon_that_is_killed_at_every_step(daemon: DyingDaemon) -> None:
    """In CI once at each place and a few more; in the long run three hundred times."""
    luck = random.Random(20)
    foreign = daemon.nvml.ask("n.nvmlDeviceGetUUID(mig(0))")
    with Sleeper() as held:
        granted = daemon.create("GPU_MIG=1g.5gb", id="held")
        daemon.confirm(granted.token, held)
        kept = daemon.ps()[0]["mig"]
        daemon.stop()
        places = list(PLACES) + [luck.choice(PLACES) for _ in range(KILLS - len(PLACES))]
        for number, place in enumerate(places):
            daemon.start_to_die_at(place if number < len(PLACES) else f"{place}:{luck.randint(1, 3)}")
            try:
                daemon.until(daemon._answers)
                daemon.until(daemon.agrees)
                daemon.work(luck)
            except Died:
                assert daemon.has_died(), daemon.tail()
        daemon.start()
        daemon.until(daemon.agrees)
        assert [row["mig"] for row in daemon.ps() if row["container"] == "held"] == [kept]
        assert kept["uuid"] in [row["uuid"] for row in daemon.instances() if row["state"] == "in-use"]
    daemon.until(lambda: not daemon.ps())
    daemon.ask("mig-gc")
    assert [row["uuid"] for row in daemon.instances()] == [foreign]
    assert [each[0] for each in daemon.shown()] == [7] and daemon.book() == []
