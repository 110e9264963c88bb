"""Who acts in the exactness machine: a simulated driver with costs drawn anew, one grant, and processes that come and
go.

Knows nothing of what they do, nor of what must hold.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from gpuportion.simgpu import state
from tests.native import capped
from tests.native.exact_process import Process, Thing
from tests.native.exact_sharing import Share
from tests.simgpu.driver import MIB

GPUS, LIMIT, PROCESSES, THREADS = 2, 3000 * MIB, 3, 3


class Cast(RuleBasedStateMachine):
    """One grant of two GPUs, and its processes."""

    @initialize(seed=st.integers(0, 1 << 16))
    def begin(self, seed: int) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="exact-"))
        self.driver = capped.simulate(self.folder, f"h100-80gb:{GPUS}", seed=seed)
        told = state.settings(self.driver.sim.state).items()
        self.costs = {key.removeprefix("cost."): int(value) for key, value in told if key.startswith("cost.")}
        self.grant = self.driver.grant(*[LIMIT] * GPUS, context=self.costs["context"])
        self.policy, self.ledger = str(self.grant.folder / "policy"), str(self.grant.folder / "ledger")
        self.processes: list[Process] = []
        self.orphans: list[int] = []
        self.shares: list[Share] = []
        self.start()
        self.start()

    def teardown(self) -> None:
        for process in getattr(self, "processes", []):
            self.end(process)
        for child in getattr(self, "orphans", []):
            os.kill(child, 9)
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder)

    def end(self, process: Process) -> None:
        process.kill()
        for child in process.children:
            os.kill(child, 9)

    def one(self, pick: int) -> Process:
        return self.processes[pick % len(self.processes)]

    def enter(self, pick: int, gpu: int) -> tuple[Process, int]:
        """A process on one of its threads, in one of its contexts of that GPU."""
        process = self.one(pick)
        contexts = [t.handle for t in process.things if t.kind in ("primary", "context") and t.gpu == gpu]
        process.enter(pick % THREADS, contexts[pick // 7 % len(contexts)])
        return process, contexts[pick // 7 % len(contexts)]

    def thing(self, pick: int, *kinds: str) -> tuple[Process, Thing] | None:
        process = self.one(pick)
        found = [thing for thing in process.things if thing.kind in kinds]
        if not found:
            return None
        thing = found[pick // 3 % len(found)]
        process, _ = self.enter(pick, thing.gpu)
        return process, thing

    def other(self, pick: int, than: Process, gpu: int) -> tuple[Process, int] | None:
        """Another process, in one of its contexts of that GPU."""
        others = [process for process in self.processes if process is not than]
        if not others:
            return None
        other = others[pick % len(others)]
        contexts = [t.handle for t in other.things if t.kind in ("primary", "context") and t.gpu == gpu]
        other.enter(pick % THREADS, contexts[pick // 7 % len(contexts)])
        return other, contexts[pick // 7 % len(contexts)]

    @precondition(lambda self: len(self.processes) < PROCESSES)
    @rule()
    def start(self) -> None:
        """One more, with the primary context of each GPU; not if there is no room for them."""
        process = Process(self.grant.preload(), GPUS, costs=self.costs)
        self.processes.append(process)
        if any(process.retain(gpu) for gpu in range(GPUS)):
            self.processes.remove(process)
            self.end(process)
