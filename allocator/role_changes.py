"""Gives GPUs the MIG role, and takes it from them, with the MIG mode that belongs to it.

    give    nobody may use the GPU as a whole or in fractions; the role is written down, then the mode is switched on.
            Where that needs a reset the role stays, and the GPU serves nobody until then
    take    no container may have an instance; the role is taken, idle instances of ours are removed, and the mode is
            switched off unless instances of others are left
    mend    a GPU with the role whose mode went with a reboot: it is switched on as soon as nobody uses it

All of the GPUs or none: they are looked at before any is changed. A GPU of which a change is under way has no other.
The daemon's thread decides, each GPU's own thread switches. What the driver does is `nvml/mig_mode.py`'s, what the
modes mean `mig/modes.py`'s."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from gpuportion.allocator.devices import Gpu, matches
from gpuportion.allocator.gpu_users import Users
from gpuportion.allocator.mig import modes
from gpuportion.allocator.mig.node import MigNode
from gpuportion.allocator.mig.roles import KeptRoles
from gpuportion.allocator.mig.seen import MigReading
from gpuportion.allocator.mig.workers import Workers
from gpuportion.allocator.pending import Steps, Wait
from gpuportion.errors import GpuportionError

log: Final = logging.getLogger("gpuportiond")

NAMED: Final = 8
"""Users that a refusal names before it says `and 3 more`."""

AGAIN: Final = 60.0
"""Seconds until a mode that could not be switched on by itself is tried again."""

CHANGING: Final = "its role is being changed just now. Say this again once that is over"

Switched = tuple[bool, bool, str]
"""The mode now, after the next reset, and why it is not what was asked for, or ""."""


class RoleChanges:
    """`users`: who uses a GPU, by its UUID. `clear`: removes idle instances of a GPU: what went, and what did not.
    `switch` and `read`: as `nvml.mig_mode.switch` and `Migs.read`, called in the GPU's thread."""

    def __init__(
        self,
        roles: KeptRoles,
        node: MigNode,
        workers: Workers,
        *,
        users: Callable[[str], Users],
        clear: Callable[[str], Steps[tuple[Sequence[object], Sequence[object]]]],
        switch: Callable[[str, bool], Switched],
        read: Callable[[str], MigReading | None],
    ) -> None:
        self._roles = roles
        self._node = node
        self._workers = workers
        self._users = users
        self._clear = clear
        self._switch = switch
        self._read = read
        self._tried: dict[str, float] = {}
        self._changing: set[str] = set()

    # Asked for

    def give(self, gpus: Sequence[Gpu], words: Sequence[str]) -> Steps[list[dict[str, Any]]]:
        """The MIG role for the GPUs that `words` mean, without words for all that can have it; a row for each.
        GpuportionError GP107, GP112: they mean none, or somebody is in the way."""
        readings = self._readings()
        chosen = _meant(gpus, words) if words else [gpu for gpu in gpus if gpu.uuid in readings]
        if not chosen:
            raise GpuportionError("GP112", what="this node's GPUs", why="none of them has MIG")
        _refuse([(gpu, self._against_giving(gpu, readings.get(gpu.uuid))) for gpu in chosen])
        had = {gpu.uuid for gpu in chosen if self._roles.has_mig_role(gpu.uuid)}
        with self._change(chosen):
            self._keep(self._roles.give, chosen)
            off = [gpu for gpu in chosen if not modes.stays_on(readings[gpu.uuid])]
            said = yield from self._switch_all(off, on=True)
            failed = [(gpu, why) for gpu in off if (why := _refusal(said[gpu.uuid], on=True))]
            self._keep(self._roles.take, [gpu for gpu, _ in failed if gpu.uuid not in had])
            _refuse(failed)
        return [self.row(gpu) for gpu in chosen]

    def take(self, gpus: Sequence[Gpu], words: Sequence[str]) -> Steps[list[dict[str, Any]]]:
        """The inverse; without words of all that have the role."""
        having = [gpu for gpu in gpus if self._roles.has_mig_role(gpu.uuid)]
        chosen = _meant(gpus, words) if words else having
        if not chosen:
            raise GpuportionError("GP112", what="this node's GPUs", why="none of them has the MIG role")
        before = self._readings()
        _refuse([(gpu, self._against_taking(gpu, before.get(gpu.uuid))) for gpu in chosen])
        with self._change(chosen):
            self._keep(self._roles.take, chosen)
            kept: list[str] = []
            for gpu in chosen:
                _, left = yield from self._clear(gpu.uuid)
                kept += [gpu.uuid] if left else []
            readings = self._readings()
            on = [gpu for gpu in chosen if gpu.uuid in readings and not modes.stays_off(readings[gpu.uuid])]
            empty = [gpu for gpu in on if not readings[gpu.uuid].instances]
            said = yield from self._switch_all(empty, on=False)
        notes = {gpu.uuid: _refusal(said[gpu.uuid], on=False) for gpu in empty}
        notes |= {gpu.uuid: _left(readings[gpu.uuid], gpu.uuid in kept) for gpu in on if gpu not in empty}
        return [self.row(gpu, notes.get(gpu.uuid, "")) for gpu in chosen]

    def row(self, gpu: Gpu, note: str = "") -> dict[str, Any]:
        """What is told of one GPU: docs/protocol.md has the columns."""
        has_role, reading = self._roles.has_mig_role(gpu.uuid), self._readings().get(gpu.uuid)
        return {
            "index": gpu.index,
            "uuid": gpu.uuid,
            "model": gpu.model,
            "role": "mig" if has_role else "fraction",
            "mig": modes.shown(reading) or "not there",
            "note": note or modes.trouble(gpu.index, has_role, reading),
        }

    # By itself

    def mend(self, gpus: Iterable[Gpu]) -> None:
        """Switch on what went off with a reboot. Whoever asks for a portion meanwhile is told why there is none."""
        readings, now = self._readings(), time.monotonic()
        for gpu in gpus:
            due = now - self._tried.get(gpu.uuid, -AGAIN) >= AGAIN
            if not due or not self._node.is_still(gpu.uuid):
                continue
            has_role = self._roles.has_mig_role(gpu.uuid)
            if modes.to_switch_on(has_role, readings.get(gpu.uuid)) and self._users(gpu.uuid) == Users():
                self._tried[gpu.uuid] = now
                log.info("MIG: switching it on for GPU %d, which has the role", gpu.index)
                self._start(gpu, on=True).then(_logged(gpu))

    # How

    def _readings(self) -> dict[str, MigReading]:
        return {gpu.uuid: reading for gpu, reading in self._node.readings()}

    def _keep(self, change: Callable[[Iterable[str]], None], gpus: Sequence[Gpu]) -> None:
        try:
            change([gpu.uuid for gpu in gpus])
        except OSError as problem:
            raise GpuportionError("GP306", what="keeping the roles of GPUs", why=problem.strerror) from None

    @contextlib.contextmanager
    def _change(self, gpus: Sequence[Gpu]) -> Iterator[None]:
        """Nobody else may begin a change of these until it is over: of a role that is taken and given at once nobody
        could say what comes of it, and the mode might not be what belongs to it."""
        uuids = {gpu.uuid for gpu in gpus}
        self._changing |= uuids
        try:
            yield
        finally:
            self._changing -= uuids

    def _against_giving(self, gpu: Gpu, reading: MigReading | None) -> str:
        if gpu.uuid in self._changing:
            return CHANGING
        if reading is None:
            return "its board, or its driver, has no MIG"
        if self._roles.has_mig_role(gpu.uuid) and reading.mode:
            return ""
        users = self._users(gpu.uuid)
        names = users.portions if reading.mode else (*users.portions, *users.strangers)
        return f"it is in use by {_listed(names)}. End them first" if names else ""

    def _against_taking(self, gpu: Gpu, reading: MigReading | None) -> str:
        if gpu.uuid in self._changing:
            return CHANGING
        if not self._roles.has_mig_role(gpu.uuid) and (reading is None or modes.stays_off(reading)):
            return "it does not have the MIG role"
        portions = self._users(gpu.uuid).portions
        return f"it has instances of {_listed(portions)}. End them first" if portions else ""

    def _switch_all(self, gpus: Sequence[Gpu], *, on: bool) -> Steps[Mapping[str, Switched]]:
        waits = {gpu.uuid: self._start(gpu, on=on) for gpu in gpus}
        said = {}
        for uuid, wait in waits.items():
            said[uuid] = yield wait
        return said

    def _start(self, gpu: Gpu, *, on: bool) -> Wait[Switched]:
        wait: Wait[Switched] = Wait()
        done: list[tuple[Switched, MigReading | None]] = []

        def work() -> None:
            said = self._switch(gpu.uuid, on)
            done.append((said, self._look(gpu.uuid)))

        def follow() -> None:
            said, reading = (
                done[0] if done else ((not on, not on, "it failed; the daemon's log has it"), None)
            )
            self._node.end(gpu.uuid, reading, time.monotonic())
            wait.end(said)

        self._node.begin(gpu.uuid)
        self._workers.submit(gpu.uuid, work, follow)
        return wait

    def _look(self, uuid: str) -> MigReading | None:
        try:
            return self._read(uuid)
        except Exception as problem:  # MigError, which is the driver's module's own: the next sample tells
            log.info("MIG: %s was not read after its mode was switched: %s", uuid, problem)
            return None


def _meant(gpus: Sequence[Gpu], words: Sequence[str]) -> list[Gpu]:
    """The GPUs by index. GP107 for a word that means none."""
    for word in words:
        if not any(matches(gpu, word) for gpu in gpus):
            known = ", ".join(f"{gpu.index} ({gpu.model}, {gpu.uuid})" for gpu in gpus)
            raise GpuportionError(
                "GP107", key="--gpu", value=word, why=f"matches no GPU of this node. It has {known}."
            )
    return [
        gpu for gpu in sorted(gpus, key=lambda gpu: gpu.index) if any(matches(gpu, word) for word in words)
    ]


def _refuse(whys: Sequence[tuple[Gpu, str]]) -> None:
    """GP112 for the GPUs that have a reason against it."""
    against = [(gpu, why) for gpu, why in whys if why]
    if against:
        what = " and ".join(f"GPU {gpu.index}" for gpu, _ in against)
        texts = [why if len(against) == 1 else f"GPU {gpu.index}: {why}" for gpu, why in against]
        raise GpuportionError("GP112", what=what, why=f"{'; '.join(texts)}.")


def _refusal(said: Switched, *, on: bool) -> str:
    """Why the mode will not be what was asked for, not even after a reset; "" if it will."""
    now, then, why = said
    if now is on or then is on:
        return ""
    return f"its MIG mode could not be switched {'on' if on else 'off'}: {why}"


def _left(reading: MigReading, kept: bool) -> str:
    """`kept`: idle ones of ours are among them, which could not be removed."""
    count = len(reading.instances)
    there = "an instance is" if count == 1 else f"{count} instances are"
    whose = "that could not be removed now" if kept else "that others made"
    return f"its MIG mode stays on: {there} there {whose}. Once that is over, say this again"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _logged(gpu: Gpu) -> Callable[[Switched], None]:
    def tell(said: Switched) -> None:
        now, _, why = said
        log.log(logging.INFO if now else logging.WARNING, "MIG: GPU %d: mode %s", gpu.index, why or "on")

    return tell
