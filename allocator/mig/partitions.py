"""MIG instances for grants: made, handed over, kept idle. The shell around the planner, the book and the acts.

    serve      an intent is written down, the act is handed to the GPU's thread, its outcome is written down, whoever
               still waits; if the driver had no room there after all, the plan is made again without that place
    free       the grant is over: the instance is idle, and stays
    look       what is written down and what the driver shows are made to agree; what is to go is tried again
    collect    idle instances are removed at once (`removals.py`)

One thread, which is the daemon's. An instance is only touched if it is in the book and the driver shows it as it is
there. Knows grants by their tokens alone."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from gpuportion.allocator.devices import Gpu
from gpuportion.allocator.fault_points import here
from gpuportion.allocator.mig import acts
from gpuportion.allocator.mig.acts import Outcome
from gpuportion.allocator.mig.asks import ask_of
from gpuportion.allocator.mig.at_work import Act, AtWork
from gpuportion.allocator.mig.book import Book
from gpuportion.allocator.mig.host import Host
from gpuportion.allocator.mig.instances import Instance
from gpuportion.allocator.mig.node import MigNode
from gpuportion.allocator.mig.planner import Plan, Policy, Spot, plan
from gpuportion.allocator.mig.portion import MigPortion
from gpuportion.allocator.mig.records import Change, Phase, Record, Verdict, reconcile
from gpuportion.allocator.mig.refusals import Refusal
from gpuportion.allocator.mig.removals import Removals
from gpuportion.allocator.mig.seen import MigReading
from gpuportion.allocator.mig.workers import Workers
from gpuportion.allocator.nvml.mig import Migs
from gpuportion.allocator.pending import Steps
from gpuportion.errors import GpuportionError
from gpuportion.shim.request import Request
from gpuportion.sizes import MIB

log: Final = logging.getLogger("gpuportiond")

TRIES: Final = 8
"""Plans for one request, where the driver has no room at the place of the one before."""

Replan = Callable[[frozenset[Spot]], Plan]
"""Another plan for the same request, without these places; GpuportionError if there is none."""


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
        self._book = book
        self._migs = migs
        self._host = host
        self._at_work = AtWork(node, workers, host)
        self._removals = Removals(book, node, migs, self._at_work, host)
        self._policy = Policy()
        self._asked: dict[str, float] = {}

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
        going = {key for key in self._at_work.keys if self._is_removing(key)}
        return self.node.instances(list(self._book), going, self._host.labels())

    def _is_removing(self, key: int) -> bool:
        record = self._book.get(key)
        return record is not None and record.phase is Phase.REMOVING

    def promised(self, found: Plan) -> MigPortion:
        """What a grant gets by this plan, before it is made."""
        return self.node.portion(self._new(found, "", once=False))

    def _new(self, found: Plan, token: str, once: bool) -> Record:
        profile = found.profile
        return Record(
            key=0,
            boot=self._host.boot,
            gpu=found.gpu.uuid,
            profile=profile.id,
            name=profile.name,
            start=found.start,
            size=profile.size,
            memory=profile.memory * MIB,
            compute=profile.compute,
            token=token,
            once=once,
        )

    # A grant's instance

    def serve(self, token: str, found: Plan, replan: Replan, once: bool) -> Steps[MigPortion]:
        """The instance of `found`, for the grant `token`; or of another plan. `once`: nobody is to have it after that.
        GpuportionError: it can't be had."""
        deadline = self._host.now() + self._host.patience
        avoid: frozenset[Spot] = frozenset()
        for _ in range(TRIES):
            key, act = self._begin(token, found, deadline, once)
            outcome = yield act.wait
            if outcome is None:
                raise _late(found, self._host.patience)
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

    def _begin(self, token: str, found: Plan, deadline: float, once: bool) -> tuple[int, Act]:
        """Write down what is going to be done, then have it done; the record's key."""
        if found.reuse is not None:
            record = self._record_of(found.reuse.gpu, found.reuse.id)
            taken = self._book.apply(record, Change.TAKEN, token=token, once=once)
            assert taken is not None
            here("mig-taken")
            return record.key, self._check(taken, deadline)
        victims = [self._record_of(one.gpu, one.id) for one in found.evict]
        record = self._book.add(self._new(found, token, once))
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
            self._removals.settle(victims, outcome)
            self._settle_made(record, outcome)

        return self._at_work.hand_over(record.gpu, keys, deadline, run, then)

    def _is_held(self, record: Record) -> bool:
        """Whether its grant lives, as far as it was heard; asked from a GPU's thread, which only reads."""
        current = self._book.get(record.key)
        return current is not None and bool(current.token)

    def _settle_made(self, record: Record, outcome: Outcome) -> None:
        seen = outcome.made
        if seen is not None and seen.only is not None:
            ids = {"gi": seen.id, "ci": seen.only.id, "uuid": seen.only.uuid, "memory": outcome.memory}
            self._book.apply(record, Change.MADE, idle_since=self._host.now(), **ids)
            here("mig-recorded")
            log.info("MIG: made %s at %d of %s: %s", record.name, record.start, record.gpu, seen.only.uuid)
        elif outcome.left is not None:
            self._book.apply(record, Change.REMOVED, gi=outcome.left)
            self._removals.try_later(record.key)
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

        return self._at_work.hand_over(
            record.gpu,
            [record.key],
            deadline,
            lambda _: _may_plan_again(acts.check(self._migs, record)),
            then,
        )

    def is_used(self, token: str) -> bool:
        """Whether processes are on the instance of a grant whose first process has ended. As long as the driver has not
        been looked at since this was first asked, they may be."""
        first = self._asked.setdefault(token, time.monotonic())
        held = [record for record in self._book if record.token == token]
        if any(self.node.users(record) for record in held):
            return True
        unknown = any(self._is_unknown(record, first) for record in held)
        if unknown:
            self._host.hurry()
        return unknown

    def _is_unknown(self, record: Record, since: float) -> bool:
        reading = self.node.reading(record.gpu)
        if reading is None:
            return not self.node.has_looked
        return not reading.trouble and reading.at < since

    def free(self, token: str) -> None:
        """The grant is over."""
        self._asked.pop(token, None)
        for record in self._book:
            if record.token == token:
                self._free(record.key)

    def _free(self, key: int) -> None:
        record = self._book.get(key)
        if record is not None and record.phase is not Phase.REMOVING and record.token:
            self._book.apply(record, Change.FREED, token="", idle_since=self._host.now())
            here("mig-freed")
            if record.once:
                self._host.wake_at(self._host.now())
            self._removals.wake_for_idle()

    def collect(self, gpu: str | None = None) -> Steps[tuple[list[Record], list[tuple[Record, str]]]]:
        """Remove all that are idle, of one GPU or of all: which are gone, and which are not, with why."""
        return self._removals.collect(gpu)

    # Looking

    def recover(self) -> None:
        """After a start: what is of another boot is gone, what has no grant any more is idle."""
        self._apply_verdicts(reconcile(list(self._book), self._host.boot, {}, self._host.labels().keys()))

    def update(self, gpus: Sequence[Gpu], readings: Mapping[str, MigReading]) -> None:
        """A new sample came."""
        self.node.update(gpus, readings)
        self.look()

    def look(self) -> None:
        """End what takes too long, make book and driver agree, and remove what is due."""
        self._at_work.give_up_late()
        if not list(self._book):
            return  # no instance is ours, nor to be
        seen = {
            gpu.uuid: reading.instances
            for gpu, reading in self.node.readings()
            if not reading.trouble and self.node.is_still(gpu.uuid)
        }
        at_work = self._at_work.keys
        free = [record for record in self._book if record.key not in at_work]
        self._apply_verdicts(reconcile(free, self._host.boot, seen, self._host.labels().keys()))
        self._removals.remove_due()

    def _apply_verdicts(self, verdicts: Sequence[Verdict]) -> None:
        for one in verdicts:
            record, only = one.record, one.seen.only if one.seen else None
            if one.change is Change.FREED:
                self._free(record.key)
            elif one.change is Change.REMOVED and record.phase is Phase.REMOVING:
                continue  # `removals.py` says when
            else:
                found: dict[str, Any] = {"gi": one.seen.id} if one.seen else {}
                found |= {"ci": only.id, "uuid": only.uuid} if only else {}
                found |= {"idle_since": self._host.now()} if one.change is Change.MADE else {}
                self._book.apply(record, one.change, **found)
                log.info("MIG: %s at %d of %s: %s", record.name, record.start, record.gpu, one.change.value)

    def stop(self, patience: float) -> None:
        """What the driver is about is ended, as far as it ends in `patience` seconds."""
        self._at_work.stop(patience)
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
