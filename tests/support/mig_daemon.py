"""A daemon on simulated GPUs that are cut by MIG, and a session of NVML beside it, by which others act.

with MigDaemon(tmp_path, "a100-40gb") as daemon:
    granted = daemon.create("GPU_MIG=2g.10gb", id="train")
    daemon.shown()                     # [[gi, profile, start, size], ...] as NVML shows it
    daemon.nvml.ask("create(14, 0)")   # somebody else makes one"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, TypeVar

from gpuportion import simgpu
from gpuportion.allocator.fault_points import POINTS
from gpuportion.simgpu import Behaviour, Sim
from tests.simgpu.nvml import Nvml
from tests.support.daemon import Daemon, unmount_below

Self = TypeVar("Self", bound="MigDaemon")

FAULTS: Final = "GPUPORTION_SIM_FAULTS"

PLACES: Final = tuple(place for place in POINTS if place.startswith("mig-"))
"""Where a daemon can be made to die while it works on MIG instances: tests/daemon/test_mig_deaths.py goes to all."""


class MigDaemon(Daemon):
    """All GPUs of `sim` have MIG on and the MIG role, but those whose index is in `fractions`."""

    def __init__(
        self,
        folder: Path,
        sim: str = "a100-40gb",
        options: Sequence[str] = (),
        behaviour: Behaviour | None = None,
        fractions: Sequence[int] = (),
    ) -> None:
        super().__init__(folder, sim, options)
        self.run_dir.mkdir()
        mode = behaviour or Behaviour(mig=not fractions)
        self.there: Sim = simgpu.start(
            sim, str(self.run_dir / "sim"), cdi_dir=str(self.run_dir / "cdi"), behaviour=mode
        )
        self.nvml = Nvml(self.there)
        for index in range(len(self.there.devices)):
            if fractions and index not in fractions:
                self.nvml.ask(f"n.nvmlDeviceSetMigMode(device({index}), 1)")
                simgpu.mig.reset(self.there.state, index)
        uuids = [device.uuid for device in self.there.devices if device.index not in fractions]
        self.state_dir.mkdir()
        (self.state_dir / "roles.json").write_text(json.dumps({"mig": uuids}))

    def __enter__(self: Self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Reservations that a test left are left: they have no pages, and their creator is the test itself."""
        try:
            if self.process is not None and self.process.poll() is None:
                self.stop()
            unmount_below(self.run_dir)
        finally:
            self.nvml.__exit__()

    def shown(self, gpu: int = 0) -> list[list[int]]:
        """[id, profile id, start, size] of each GPU instance, as NVML shows them."""
        found: list[list[int]] = self.nvml.ask(f"instances({gpu})")
        return found

    def instances(self) -> list[dict[str, Any]]:
        """As `gpuportion mig list` shows them."""
        rows: list[dict[str, Any]] = self.ask("mig-list").head["instances"]
        return rows

    def states(self) -> list[str]:
        """`2g.10gb@0 in-use` of each instance, by GPU and place."""
        return [f"{one['profile']}@{one['start']} {one['state']}" for one in self.instances()]

    def book(self) -> list[dict[str, Any]]:
        """What is written down of our instances."""
        path = self.state_dir / "mig.json"
        records: list[dict[str, Any]] = json.loads(path.read_text())["records"] if path.exists() else []
        return records
