"""Acts that were handed to the GPUs' threads and have not ended.

    hand_over       an act is queued for its GPU; what follows it is done in the daemon's thread, whoever still waits
    give_up_late    who has waited longer than the driver may take is told so. The act goes on, and its GPU serves
                    nobody until it has ended

Knows by their keys on which records an act works, and nothing of what is in them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from gpuportion.allocator.mig.acts import Outcome
from gpuportion.allocator.mig.host import Host
from gpuportion.allocator.mig.node import MigNode
from gpuportion.allocator.mig.workers import Workers
from gpuportion.allocator.pending import Wait

log: Final = logging.getLogger("gpuportiond")


@dataclass(slots=True)
class Act:
    """What was handed to a GPU's thread. `keys`: the records that it works on."""

    gpu: str
    keys: frozenset[int]
    deadline: float
    wait: Wait[Outcome | None]
    outcome: Outcome = field(default_factory=Outcome)
    ended: float = 0.0

    @property
    def is_wanted(self) -> bool:
        """False once whoever asked for it has given up."""
        return not self.wait.is_over


class AtWork:
    """One thread, which is the daemon's; what `run` is given does, is done in the GPU's."""

    def __init__(self, node: MigNode, workers: Workers, host: Host) -> None:
        self._node = node
        self._workers = workers
        self._host = host
        self._acts: list[Act] = []

    @property
    def keys(self) -> set[int]:
        """Of all records that are being worked on."""
        return {key for act in self._acts for key in act.keys}

    def hand_over(
        self,
        gpu: str,
        keys: Sequence[int],
        deadline: float,
        run: Callable[[Act], Outcome],
        then: Callable[[Outcome], None],
    ) -> Act:
        """Have `run` done in the GPU's thread; `then` writes down what came of it, even if nobody waits any more."""
        act = Act(gpu, frozenset(keys), deadline, Wait())

        def work() -> None:
            act.outcome = run(act)
            act.ended = time.monotonic()

        def follow() -> None:
            self._acts.remove(act)
            self._node.end(gpu, act.outcome.reading, act.ended or time.monotonic())
            self._node.stuck.pop(gpu, None)
            try:
                then(act.outcome)
            finally:
                act.wait.end(act.outcome)

        self._acts.append(act)
        self._node.begin(gpu)
        self._host.wake_at(deadline)
        self._workers.submit(gpu, work, follow)
        return act

    def give_up_late(self) -> None:
        for act in [act for act in self._acts if act.is_wanted and self._host.now() >= act.deadline]:
            why = f"a change of its MIG instances has not ended in {self._host.patience:g} s"
            log.warning("MIG: %s: %s", act.gpu, why)
            self._node.stuck[act.gpu] = why
            act.wait.end(None)

    def stop(self, patience: float) -> None:
        """Nobody is answered any more; what the driver is about is ended, as far as it ends in `patience` seconds. What
        came of it the next daemon finds by the book."""
        for act in list(self._acts):
            act.wait.end(None)
        self._workers.stop(patience)
