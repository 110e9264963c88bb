"""What the daemon knows of the GPUs now: NVML's last sample (sampler.py), with what belongs to no grant taken off and
those that are ill marked; and the contexts it learned.

Knows grants only as rows; places nothing.
"""

from __future__ import annotations

import dataclasses
import logging
import operator
import os
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Final

from gpuportion.allocator import learning, pages, processes
from gpuportion.allocator.attribution import Attribution, Held
from gpuportion.allocator.devices import Gpu, Share
from gpuportion.allocator.grants import Grants, now
from gpuportion.allocator.health import Health, called, is_harmless
from gpuportion.allocator.inventory import Sample
from gpuportion.allocator.lifecycle import State
from gpuportion.allocator.owners import Claim
from gpuportion.allocator.store import Grant
from gpuportion.allocator.unseen import Key, Unseen
from gpuportion.errors import GpuportionError

log: Final = logging.getLogger("gpuportiond")

LOOKS: Final = 64
"""Ledgers that are read for memory they don't count after one sample; the others have their turn later."""

LESSONS: Final = 32
"""Ledgers that are read for learning after one sample."""

TRIES: Final = 3
"""Times that a grant's ledger is read for learning while NVML shows the same of it."""

SETTLED: Final = 5
"""Samples that are alike before they tell nothing: more than memory must be nobody's (attribution), and be measured."""

SELDOM: Final = 8
"""Of so many, one is looked at."""


class NodeView:
    """GPUs as placement takes them."""

    def __init__(self, grants: Grants, state_dir: str) -> None:
        self.gpus: tuple[Gpu, ...] = ()
        self.driver = ""
        self.trouble = "NVML has not answered yet"
        self.claims: tuple[Claim, ...] = ()
        self._grants = grants
        self.is_calm = False
        """Whether the last sample, and all else, is as it was before."""
        self._live: list[Grant] = []
        self._still = 0
        self._has_pupils = self._has_due = False
        self._bare: tuple[Gpu, ...] = ()
        self._claimed: dict[str, tuple[Grant, Claim]] = {}
        self._attribution = Attribution()
        self._contexts_file = f"{state_dir}/context.json"
        self._learned = learning.load(self._contexts_file)
        self._taught: set[str] = set()
        self._seen: dict[tuple[str, str], tuple[int, int]] = {}
        self._tried: dict[str, tuple[list[tuple[int, int]], int]] = {}
        self._unseen = Unseen()
        self._health = Health()
        self._said: dict[str, str] = {}
        self._silence = ""
        self.followers: list[Callable[[Sample], None]] = []
        """Who is told of each sample as well, once the GPUs are those of it."""

    def update(self, sample: Sample) -> None:
        """A new sample came."""
        self._silence = ""
        if sample.trouble != self.trouble:
            log.info("GPUs: %s", sample.trouble or f"{len(sample.readings)}, driver {sample.driver}")
        self.trouble = sample.trouble
        if sample.trouble:
            self.gpus, self.claims, self._still = (), (), 0
            self._attribution.held = {}
            return
        self.driver = sample.driver
        live = self._grants.live()
        self.is_calm = self._is_calm(sample, live)
        if not self.is_calm:
            self._look(sample, live)
        self.gpus = self._healthy(self._bare, sample)
        self._say_troubles()
        for follow in self.followers:
            follow(sample)

    def _is_calm(self, sample: Sample, live: list[Grant]) -> bool:
        """Is it as it was for long enough that a look would tell nothing? Now and then there is one all the same."""
        rows = len(live) == len(self._live) and all(map(operator.is_, live, self._live))
        same = not sample.moved and rows and not self._attribution.has_lost()
        self._live, self._still = live, self._still + 1 if same else 0
        busy = self._has_pupils or self._has_due or self.is_undecided
        return self._still >= SETTLED and self._still % SELDOM != 0 and not busy

    def _look(self, sample: Sample, live: list[Grant]) -> None:
        """Whose is what, and what is to be done about it."""
        self._claimed = {grant.token: self._claimed_by(grant) for grant in live}
        self.claims = tuple(claim for _, claim in self._claimed.values())
        self._bare = self._attribution.update(sample, self.claims)
        self._learn(live)
        self._measure({grant.token: grant for grant in live if grant.state is State.ACTIVE})

    def wait_since(self, began: float) -> None:
        """NVML is silent since then (seconds of CLOCK_BOOTTIME): what was read before serves nobody any more."""
        clock = time.strftime("%H:%M:%S", time.localtime(time.time() - (now() - began)))
        why = f"NVML, the NVIDIA driver's library, has not answered since {clock}; the driver may hang (see dmesg)"
        self._silence = why
        if not self.gpus and self.trouble != why:
            self.trouble = why
            log.warning("GPUs: %s", why)
        self.gpus = tuple(dataclasses.replace(gpu, trouble=why) for gpu in self.gpus)
        self._say_troubles()

    def _healthy(self, gpus: Sequence[Gpu], sample: Sample) -> tuple[Gpu, ...]:
        """The GPUs, with the trouble of those that NVML answers for and that serve nobody all the same."""
        index = {gpu.uuid: gpu.index for gpu in gpus}
        for uuid, xid in sample.xids:
            follows = "a program's, nothing follows" if is_harmless(xid) else "it serves nobody"
            log.warning("GPU %s had %s: %s", index.get(uuid, "?"), called(xid), follows)
        actions = {reading.uuid: reading.action for reading in sample.readings if reading.answers}
        troubles = self._health.update(sample.xids, actions, now())
        return tuple(
            gpu
            if gpu.trouble or gpu.uuid not in troubles
            else dataclasses.replace(gpu, trouble=troubles[gpu.uuid])
            for gpu in gpus
        )

    def _say_troubles(self) -> None:
        """What changed since it was last said."""
        troubles = {gpu.uuid: gpu.trouble for gpu in self.gpus}
        for gpu in self.gpus:
            before = self._said.get(gpu.uuid, "")
            if gpu.trouble and gpu.trouble != before:
                log.warning("GPU %d serves nobody: %s", gpu.index, gpu.trouble)
            elif before and not gpu.trouble:
                log.info("GPU %d serves again", gpu.index)
        self._said = troubles

    def keep_to(self, margin: int, overcommit: Decimal) -> None:
        """From now on so many bytes of each GPU are kept back, and it may be granted so many times over."""
        self._attribution.margin, self._attribution.overcommit = margin, overcommit
        self._still = 0
        self.gpus = tuple(dataclasses.replace(gpu, margin=margin, overcommit=overcommit) for gpu in self.gpus)

    def need_gpus(self) -> tuple[Gpu, ...]:
        """The GPUs. GpuportionError GP302 with the reason where there are none, or nothing is known of them now."""
        if self._silence or not self.gpus:
            raise GpuportionError("GP302", why=self._silence or self.trouble)
        return self.gpus

    @property
    def processes(self) -> Mapping[str, Sequence[Held]]:
        """By GPU UUID, what each process holds; empty while NVML tells nothing."""
        return self._attribution.held

    def held(self, token: str) -> dict[str, int]:
        """Bytes by GPU UUID that NVML says the processes of a grant hold."""
        found = {
            uuid: [one.size for one in held if one.token == token]
            for uuid, held in self._attribution.held.items()
        }
        return {uuid: sum(sizes) for uuid, sizes in found.items()}

    def context(self, model: str) -> int:
        """Bytes that a process's context takes on this model, as far as we know."""
        return self._learned.get(learning.kind(model, self.driver), learning.NOTHING).context

    @property
    def is_undecided(self) -> bool:
        """Would one more sample say whose a process is?"""
        return self._attribution.is_undecided

    def _claimed_by(self, grant: Grant) -> tuple[Grant, Claim]:
        """What it claims; rows don't change but by another row in their place."""
        before = self._claimed.get(grant.token)
        return before if before is not None and before[0] is grant else (grant, self._claim(grant))

    def _claim(self, grant: Grant) -> Claim:
        return Claim(
            token=grant.token,
            cgroups=grant.cgroups,
            holder=grant.holder,
            limits={_gpu_of(share): share.limit for share in grant.shares},
            tolerated={share.uuid: share.tolerated for share in grant.shares if share.tolerated},
            ledger=0 if grant.cgroups or grant.state is not State.ACTIVE else self._ledger_device(grant),
        )

    def _ledger_device(self, grant: Grant) -> int:
        """The device number of the tmpfs that has this grant's ledger and nothing else; 0: it has none."""
        try:
            ledger = os.stat(self._grants.ledger(grant)).st_dev
            return 0 if ledger == os.stat(self._grants.folder(grant)).st_dev else ledger
        except OSError:
            return 0

    # Memory that the container's library does not see

    def _measure(self, live: Mapping[str, Grant]) -> None:
        held = {
            Key(one.token, uuid, one.pid): one.size
            for uuid, all_held in self._attribution.held.items()
            for one in all_held
            if one.token is not None and one.token in live
        }
        self._unseen.keep(held)
        due = [key for key, size in held.items() if self._unseen.is_due(key, size)]
        self._has_due = bool(due)
        for token in list(dict.fromkeys(key.token for key in due))[:LOOKS]:
            keys = [key for key in due if key.token == token]
            for key in keys:
                self._unseen.looked(key)
            self._tell(live[token], keys)

    def _tell(self, grant: Grant, keys: Iterable[Key]) -> None:
        view = pages.read_ledger(self._grants.ledger(grant), len(grant.shares))
        for key in keys:
            for gpu, (share, use) in enumerate(zip(grant.shares, view.gpus, strict=True)):
                if share.uuid != key.uuid:
                    continue
                mine = self._places(grant, key.pid, use.processes)
                if len(mine) != 1:
                    continue
                found = self._unseen.measure(key, mine[0].used, mine[0].unseen)
                if found is not None:
                    self._say(grant, gpu, mine[0], found)

    def _places(self, grant: Grant, pid: int, among: Iterable[pages.Process]) -> list[pages.Process]:
        """Those of the ledger's processes that `pid` can be. In a nested pid namespace another one of the container
        may have the same number: then the locks tell, by which a process owns its cell."""
        inner = processes.innermost_pid(pid)
        mine = [one for one in among if one.pid == inner]
        if len(mine) < 2:
            return mine
        try:
            ledger = os.stat(self._grants.ledger(grant))
        except OSError:
            return []
        locked = processes.locked_bytes(pid, ledger.st_dev, ledger.st_ino)
        return [one for one in mine if one.cell in locked]

    def _say(self, grant: Grant, gpu: int, process: pages.Process, found: int) -> None:
        try:
            pages.set_unseen(f"{self._grants.folder(grant)}/policy", gpu, process, found)
        except (OSError, pages.BadPageError) as problem:
            log.warning("%s: its policy could not be changed: %s", grant.token, problem)

    # Learning

    def _learn(self, live: Iterable[Grant]) -> None:
        live = list(live)
        tokens = {grant.token for grant in live}
        self._taught &= tokens
        self._seen = {key: value for key, value in self._seen.items() if key[0] in tokens}
        new = [grant for grant in live if grant.state is State.ACTIVE and grant.token not in self._taught]
        before = self._learned
        shown = self._shown({grant.token for grant in new})
        self._tried = {token: tried for token, tried in self._tried.items() if token in shown}
        pupils = [one for one in new if self._may_teach(one.token, shown.get(one.token))]
        self._has_pupils = bool(pupils)
        for grant in pupils[:LESSONS]:
            sizes, tries = self._tried.get(grant.token, ([], 0))
            same = sizes == shown[grant.token]
            self._tried[grant.token] = shown[grant.token], tries + 1 if same else 1
            self._learn_from(grant)
        if self._learned != before:
            self._keep()

    def _shown(self, tokens: Collection[str]) -> dict[str, list[tuple[int, int]]]:
        """(pid, bytes) of the processes of these grants, on any GPU."""
        found: dict[str, list[tuple[int, int]]] = {}
        for held in self._attribution.held.values() if tokens else ():
            for one in held:
                if one.token in tokens:
                    found.setdefault(one.token or "", []).append((one.pid, one.size))
        return found

    def _may_teach(self, token: str, shown: list[tuple[int, int]] | None) -> bool:
        """Not who has no process, nor who was asked in vain and shows the same."""
        sizes, tries = self._tried.get(token, ([], 0))
        return shown is not None and (tries < TRIES or sizes != shown)

    def _learn_from(self, grant: Grant) -> None:
        """One grant teaches once, by a process that is its only one and has not moved between two samples."""
        view = pages.read_ledger(self._grants.ledger(grant), len(grant.shares))
        if view.damaged:
            self._taught.add(grant.token)
            return
        models = {gpu.uuid: gpu.model for gpu in self.gpus}
        for share, use in zip(grant.shares, view.gpus, strict=True):
            held = [
                one.size for one in self._attribution.held.get(share.uuid, ()) if one.token == grant.token
            ]
            if len(held) != 1 or len(use.processes) != 1 or share.uuid not in models:
                continue
            now = (held[0], use.processes[0].used - use.processes[0].unseen)
            same = self._seen.get((grant.token, share.uuid)) == now
            self._seen = {key: value for key, value in self._seen.items() if key[0] != grant.token}
            if not same:
                self._seen[grant.token, share.uuid] = now
                continue
            self._taught.add(grant.token)
            self._take_vote(models[share.uuid], *now, share.context)

    def _take_vote(self, model: str, held: int, counted: int, context: int) -> None:
        estimated = learning.estimate(held, counted, context)
        if estimated is not None:
            kind = learning.kind(model, self.driver)
            new = learning.vote(self._learned.get(kind, learning.NOTHING), estimated, held)
            self._learned = {**self._learned, kind: new}
            log.info("a context on %s takes %d MiB", kind, new.context >> 20)

    def _keep(self) -> None:
        try:
            learning.save(self._contexts_file, self._learned)
        except OSError as problem:
            log.warning("what was learned about contexts could not be kept: %s", problem)


def _gpu_of(share: Share) -> str:
    """The UUID of the GPU whose memory it is: a MIG instance's processes are listed there as well."""
    return share.mig.gpu if share.mig else share.uuid
