"""MIG instances for grants: made, handed over, kept idle, removed. The shell around the planner, the book and the acts.

    serve      an intent is written down, the act is handed to the GPU's thread, its outcome is written down, whoever
               still waits; if the driver had no room there after all, the plan is made again without that place
    free       the grant is over: the instance is idle, and stays
    look       what is written down and what the driver shows are made to agree; what is to go is tried again
    collect    idle instances are removed at once; by `look`, those that have been idle for too long

One thread, which is the daemon's. An instance is only touched if it is in the book and the driver shows it as it is
there. Knows grants by their tokens alone."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from gpuportion.allocator.devices import Gpu
from gpuportion.allocator.fault_points import here
from gpuportion.allocator.mig import acts
from gpuportion.allocator.mig.acts import Outcome
from gpuportion.allocator.mig.asks import ask_of
from gpuportion.allocator.mig.book import Book
from gpuportion.allocator.mig.instances import Instance
from gpuportion.allocator.mig.node import MigNode
from gpuportion.allocator.mig.planner import Plan, Policy, Spot, plan
from gpuportion.allocator.mig.portion import MigPortion
from gpuportion.allocator.mig.records import Change, Phase, Record, Verdict, reconcile
from gpuportion.allocator.mig.refusals import Refusal
from gpuportion.allocator.mig.seen import MigReading
from gpuportion.allocator.mig.workers import Workers
from gpuportion.allocator.nvml.mig import Migs
from gpuportion.allocator.pending import Steps, Wait
from gpuportion.errors import GpuportionError
from gpuportion.shim.request import Request
from gpuportion.sizes import MIB

log: Final = logging.getLogger("gpuportiond")

PATIENCE: Final = 30.0
"""Seconds that a request may take here, unless the daemon was told otherwise; who creates a container waits for 40."""

TRIES: Final = 8
"""Plans for one request, where the driver has no room at the place of the one before."""

FIRST_RETRY: Final = 1.0
LAST_RETRY: Final = 60.0
"""Seconds until an instance that could not be removed is tried again."""

Replan = Callable[[frozenset[Spot]], Plan]
"""Another plan for the same request, without these places; GpuportionError if there is none."""


@dataclass(slots=True)
class Act:
    """What was handed to a GPU's thread. `keys`: the records that it works on."""

    gpu: str
    keys: frozenset[int]
    deadline: float
    wait: Wait[Outcome | None]
    outcome: Outcome = dataclasses.field(default_factory=Outcome)
    ended: float = 0.0

    @property
    def is_wanted(self) -> bool:
        """False once whoever asked for it has given up."""
        return not self.wait.is_over


@dataclass(frozen=True, slots=True)
class Host:
    """What the daemon is to the partitions.

    `now`: seconds of CLOCK_BOOTTIME; `wake_at`: call `look` at this time; `labels`: of live grants, by token;
    `max_idle`: seconds after which an idle instance is removed, None: never by itself; `patience`: for the driver."""

    boot: str
    now: Callable[[], float]
    wake_at: Callable[[float], None]
    labels: Callable[[], Mapping[str, str]]
    max_idle: Callable[[], float | None]
    patience: float = PATIENCE


class Partitions:
    def __init__(
        self,
        book: Book,
        node: MigNode,
        migs: Migs,
        workers: Workers,
        host: Host,
    ) -> None:
        self.node = node
        self._max_idle = host.max_idle
        self._patience = host.patience
        self._book = book
        self._migs = migs
        self._workers = workers
        self._boot = host.boot
        self._now = host.now
        self._wake_at = host.wake_at
        self._labels = host.labels
        self._policy = Policy()
        self._acts: list[Act] = []
        self._retries: dict[int, tuple[float, float]] = {}

    # Planning

    def asked(self, want: Request) -> None:
        """Somebody asks for this; by such requests the planner knows what to keep room for."""
        self._policy = dataclasses.replace(self._policy, mix=self._policy.mix.after(ask_of(want)))

    def plan(self, want: Request, avoid: frozenset[Spot] = frozenset()) -> Plan | Refusal:
        """GpuportionError: it could never be served by MIG."""
        policy = dataclasses.replace(self._policy, avoid=avoid)
        return plan(self.node.gpus(), self.instances(), want, policy)

    def instances(self) -> list[Instance]:
        """What is on the GPUs, as the planner takes it."""
        going = {key for act in self._acts for key in act.keys if self._is_removing(key)}
        return self.node.instances(list(self._book), going, self._labels())

    def _is_removing(self, key: int) -> bool:
        record = self._book.get(key)
        return record is not None and record.phase is Phase.REMOVING

    def promised(self, found: Plan) -> MigPortion:
        """What a grant gets by this plan, before it is made."""
        return self.node.portion(self._new(found, ""))

    def _new(self, found: Plan, token: str) -> Record:
        profile = found.profile
        return Record(
            key=0,
            boot=self._boot,
            gpu=found.gpu.uuid,
            profile=profile.id,
            name=profile.name,
            start=found.start,
            size=profile.size,
            memory=profile.memory * MIB,
            compute=profile.compute,
            token=token,
        )

    # A grant's instance

    def serve(self, token: str, found: Plan, replan: Replan) -> Steps[MigPortion]:
        """The instance of `found`, for the grant `token`; or of another plan. GpuportionError: it can't be had."""
        deadline = self._now() + self._patience
        avoid: frozenset[Spot] = frozenset()
        for _ in range(TRIES):
            key, act = self._begin(token, found, deadline)
            outcome = yield act.wait
            if outcome is None:
                raise _late(found, self._patience)
            record = self._book.get(key)
            if record is not None and record.phase is Phase.READY and record.token == token and outcome.made:
                return self.node.portion(record)
            if not outcome.is_full:
                raise _failed(found, outcome.trouble)
            log.info(
                "MIG: %s at %d of GPU %d: %s",
                found.profile.name,
                found.start,
                found.gpu.index,
                outcome.trouble,
            )
            avoid |= {Spot(found.gpu.uuid, found.profile.id, found.start)} if found.reuse is None else set()
            found = replan(avoid)
        raise _failed(found, f"the driver had no room at {TRIES} places, one after the other")

    def _begin(self, token: str, found: Plan, deadline: float) -> tuple[int, Act]:
        """Write down what is going to be done, then have it done; the record's key."""
        if found.reuse is not None:
            record = self._record_of(found.reuse.gpu, found.reuse.id)
            taken = self._book.apply(record, Change.TAKEN, token=token)
            assert taken is not None
            here("mig-taken")
            return record.key, self._check(taken, deadline)
        victims = [self._record_of(one.gpu, one.id) for one in found.evict]
        record = self._book.add(self._new(found, token))
        for victim in victims:
            self._book.apply(victim, Change.REMOVED)
        here("mig-intended")
        return record.key, self._make(record, victims, deadline)

    def _record_of(self, gpu: str, gi: int) -> Record:
        return next(record for record in self._book.of(gpu) if record.gi == gi)

    def _make(self, record: Record, victims: Sequence[Record], deadline: float) -> Act:
        keys = [record.key, *(victim.key for victim in victims)]

        def run(act: Act) -> Outcome:
            return acts.make(self._migs, record, victims, lambda: act.is_wanted and self._is_held(record))

        def then(outcome: Outcome) -> None:
            self._settle_victims(victims, outcome)
            self._settle_made(record, outcome)

        return self._hand_over(record.gpu, keys, deadline, run, then)

    def _is_held(self, record: Record) -> bool:
        """Whether its grant lives, as far as it was heard; asked from a GPU's thread, which only reads."""
        current = self._book.get(record.key)
        return current is not None and bool(current.token)

    def _settle_made(self, record: Record, outcome: Outcome) -> None:
        seen = outcome.made
        if seen is not None and seen.only is not None:
            ids = {"gi": seen.id, "ci": seen.only.id, "uuid": seen.only.uuid, "memory": outcome.memory}
            self._book.apply(record, Change.MADE, idle_since=self._now(), **ids)
            here("mig-recorded")
            log.info("MIG: made %s at %d of %s: %s", record.name, record.start, record.gpu, seen.only.uuid)
        elif outcome.left is not None:
            self._book.apply(record, Change.REMOVED, gi=outcome.left)
            self._try_later(record.key)
        else:
            self._book.apply(record, Change.FAILED)
            here("mig-given-up")

    def _check(self, record: Record, deadline: float) -> Act:
        def then(outcome: Outcome) -> None:
            if not outcome.trouble:
                return
            self._free(record.key)
            if outcome.reading and not any(record.is_same(seen) for seen in outcome.reading.instances):
                self._book.apply(record, Change.GONE)
                log.info("MIG: %s at %d of %s is not there any more", record.name, record.start, record.gpu)

        return self._hand_over(
            record.gpu,
            [record.key],
            deadline,
            lambda _: _may_plan_again(acts.check(self._migs, record)),
            then,
        )

    def free(self, token: str) -> None:
        """The grant is over."""
        for record in self._book:
            if record.token == token:
                self._free(record.key)

    def _free(self, key: int) -> None:
        record = self._book.get(key)
        if record is not None and record.phase is not Phase.REMOVING and record.token:
            self._book.apply(record, Change.FREED, token="", idle_since=self._now())
            here("mig-freed")
            self._wake_for_idle()

    # Removing

    def collect(self, gpu: str | None = None) -> Steps[tuple[list[Record], list[tuple[Record, str]]]]:
        """Remove all that are idle, of one GPU or of all: which are gone, and which are not, with why."""
        gone: list[Record] = []
        kept: list[tuple[Record, str]] = []
        idle = [record for record in self._book if record.is_idle and gpu in (None, record.gpu)]
        for act, records in self._remove_all(idle):
            outcome = yield act.wait
            whys = dict(outcome.kept) if outcome else {}
            late = f"the driver has not done it in {self._patience:g} s"
            for record in records:
                if outcome is not None and record.key in outcome.removed:
                    gone.append(record)
                else:
                    kept.append((record, whys.get(record.key, late)))
        return gone, kept

    def _remove_all(self, records: Sequence[Record]) -> list[tuple[Act, list[Record]]]:
        by_gpu: dict[str, list[Record]] = {}
        for record in records:
            by_gpu.setdefault(record.gpu, []).append(record)
        return [(self._remove(found), found) for found in by_gpu.values()]

    def _remove(self, records: Sequence[Record]) -> Act:
        """Of one GPU."""
        for record in records:
            if record.phase is not Phase.REMOVING:
                self._book.apply(record, Change.REMOVED)
        here("mig-removal-intended")
        return self._hand_over(
            records[0].gpu,
            [record.key for record in records],
            self._now() + self._patience,
            lambda _: acts.remove(self._migs, records),
            lambda outcome: self._settle_victims(records, outcome),
        )

    def _settle_victims(self, victims: Sequence[Record], outcome: Outcome) -> None:
        """What is gone has no record any more; what is whole is idle as before, half of one is tried again."""
        for victim in victims:
            record = self._book.get(victim.key)
            if record is None:
                continue
            if victim.key in outcome.removed:
                self._book.apply(record, Change.GONE)
                self._retries.pop(victim.key, None)
                log.info(
                    "MIG: removed %s at %d of %s: %s", record.name, record.start, record.gpu, record.uuid
                )
                continue
            if record.uuid and self._is_whole(record, outcome.reading):
                self._book.apply(record, Change.KEPT)
            if victim.key in dict(outcome.kept):
                self._try_later(victim.key)
        here("mig-removal-recorded")

    def _is_whole(self, record: Record, reading: MigReading | None) -> bool:
        if reading is None or reading.trouble:
            return False
        return any(record.is_same(seen) and seen.only is not None for seen in reading.instances)

    def _try_later(self, key: int) -> None:
        wait = min(LAST_RETRY, self._retries.get(key, (0.0, FIRST_RETRY / 2))[1] * 2)
        self._retries[key] = (self._now() + wait, wait)
        self._wake_at(self._retries[key][0])

    def _may_try(self, key: int) -> bool:
        return self._now() >= self._retries.get(key, (0.0, 0.0))[0]

    # Looking

    def recover(self) -> None:
        """After a start: what is of another boot is gone, what has no grant any more is idle."""
        self._apply_verdicts(reconcile(list(self._book), self._boot, {}, self._labels().keys()))

    def update(self, gpus: Sequence[Gpu], readings: Mapping[str, MigReading]) -> None:
        """A new sample came."""
        self.node.update(gpus, readings)
        self.look()

    def look(self) -> None:
        """End what takes too long, make book and driver agree, and remove what is due."""
        self._give_up_late()
        seen = {
            gpu.uuid: reading.instances
            for gpu, reading in self.node.readings()
            if not reading.trouble and self.node.is_still(gpu.uuid)
        }
        at_work = {key for act in self._acts for key in act.keys}
        free = [record for record in self._book if record.key not in at_work]
        self._apply_verdicts(reconcile(free, self._boot, seen, self._labels().keys()))
        self._remove_all([record for record in self._book if self._is_due(record)])
        self._wake_for_idle()

    def _apply_verdicts(self, verdicts: Sequence[Verdict]) -> None:
        for one in verdicts:
            record, only = one.record, one.seen.only if one.seen else None
            if one.change is Change.FREED:
                self._free(record.key)
            elif one.change is Change.REMOVED and record.phase is Phase.REMOVING:
                continue  # `_is_due` says when
            else:
                found: dict[str, Any] = {"gi": one.seen.id} if one.seen else {}
                found |= {"ci": only.id, "uuid": only.uuid} if only else {}
                found |= {"idle_since": self._now()} if one.change is Change.MADE else {}
                self._book.apply(record, one.change, **found)
                log.info("MIG: %s at %d of %s: %s", record.name, record.start, record.gpu, one.change.value)

    def _is_due(self, record: Record) -> bool:
        if not self._may_try(record.key) or any(record.key in act.keys for act in self._acts):
            return False
        if record.phase is Phase.REMOVING:
            return self.node.seen(record.gpu) is not None
        most = self._max_idle()
        too_long = most is not None and self._now() - record.idle_since >= most
        return record.is_idle and too_long and not self.node.users(record)

    def _wake_for_idle(self) -> None:
        most = self._max_idle()
        if most is not None:
            times = [record.idle_since + most for record in self._book if record.is_idle]
            if times and min(times) > self._now():
                self._wake_at(min(times))

    # Acts

    def _hand_over(
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
            self.node.end(gpu, act.outcome.reading, act.ended or time.monotonic())
            self.node.stuck.pop(gpu, None)
            try:
                then(act.outcome)
            finally:
                act.wait.end(act.outcome)

        self._acts.append(act)
        self.node.begin(gpu)
        self._wake_at(deadline)
        self._workers.submit(gpu, work, follow)
        return act

    def _give_up_late(self) -> None:
        for act in [act for act in self._acts if act.is_wanted and self._now() >= act.deadline]:
            why = f"a change of its MIG instances has not ended in {self._patience:g} s"
            log.warning("MIG: %s: %s", act.gpu, why)
            self.node.stuck[act.gpu] = why
            act.wait.end(None)

    def stop(self, patience: float) -> None:
        """Nobody is answered any more; what the driver is about is ended, as far as it ends in `patience` seconds. What
        came of it the next daemon finds by the book."""
        for act in list(self._acts):
            act.wait.end(None)
        self._workers.stop(patience)
        self._migs.close()

    # What is shown

    def records(self) -> list[Record]:
        return list(self._book)


def _may_plan_again(outcome: Outcome) -> Outcome:
    """An idle instance that cannot be had after all: another may be, or one can be made."""
    return dataclasses.replace(outcome, is_full=bool(outcome.trouble))


def _late(found: Plan, patience: float) -> GpuportionError:
    why = (
        f"the driver has not done it in {patience:g} s. If it ends later, the instance is kept for the next request. "
        "Try again; `gpuportion mig list` shows what is there, `nvidia-smi` whether the GPU answers"
    )
    return GpuportionError("GP306", what=_what(found), why=why)


def _failed(found: Plan, why: str) -> GpuportionError:
    return GpuportionError("GP306", what=_what(found), why=f"{why}. Nothing is held for it")


def _what(found: Plan) -> str:
    return f"making the MIG instance {found.profile.name} on GPU {found.gpu.index}"
