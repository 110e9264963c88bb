"""MIG for the daemon's operations: which way serves a request, the instance of a grant, and what is shown of both.

Puts the roles, the planner and the partitions together; decides nothing by itself. A grant that is an instance has one
share, no pages and no library in its container: the GPU holds it to its memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gpuportion.allocator import no_room, ways
from gpuportion.allocator.devices import Gpu, Share
from gpuportion.allocator.fractions import Fractions
from gpuportion.allocator.grants import now
from gpuportion.allocator.inventory import Sample
from gpuportion.allocator.mig import modes, refusals, views
from gpuportion.allocator.mig.partitions import Partitions
from gpuportion.allocator.mig.planner import Plan, Spot
from gpuportion.allocator.mig.portion import MigPortion
from gpuportion.allocator.mig.roles import Roles
from gpuportion.allocator.pages import GpuUse, LedgerView
from gpuportion.allocator.pending import Steps
from gpuportion.allocator.placement import Placement
from gpuportion.allocator.pool import Pool
from gpuportion.allocator.role_changes import RoleChanges
from gpuportion.allocator.store import Grant
from gpuportion.shim.request import Request, Role

NO_AVOID: frozenset[Spot] = frozenset()
ByFraction = Callable[[Pool], "Placement | no_room.Refusal"]


class MigGrants:
    def __init__(self, partitions: Partitions, roles: Roles, changes: RoleChanges) -> None:
        self.changes = changes
        self._partitions = partitions
        self._node = partitions.node
        self._roles = roles
        self._fractions = Fractions(roles, self._node)

    def update(self, gpus: Sequence[Gpu], sample: Sample) -> None:
        """A new sample came."""
        self._partitions.update(gpus, {one.uuid: one.mig for one in sample.readings if one.mig is not None})
        self.changes.mend(gpus)

    # Granting

    def choose(
        self, want: Request, subject: str, gpus: tuple[Gpu, ...], by_fraction: ByFraction
    ) -> Placement | Plan:
        """How `want` is served. GpuportionError: by no way."""
        pool = self._fractions.pool(gpus)
        parts = self._node.gpus()
        if parts and Role.MIG in ways.order(want):
            self._partitions.asked(want)
        return ways.choose(
            want, subject, pool.gpus, parts, lambda: by_fraction(pool), lambda: self._partitions.plan(want)
        )

    def again(self, want: Request, subject: str, avoid: frozenset[Spot]) -> Plan:
        """Another plan, without the places that the driver refused. GpuportionError GP101: there is none."""
        found = self._partitions.plan(want, avoid)
        if isinstance(found, refusals.Refusal):
            raise found.error(subject)
        return found

    def shares(self, found: Placement | Plan) -> tuple[Share, ...]:
        """What a grant gets; of an instance that is to be made, before it is."""
        return found.shares if isinstance(found, Placement) else (share_of(self._partitions.promised(found)),)

    def serve(
        self, token: str, found: Plan, replan: Callable[[frozenset[Spot]], Plan], *, once: bool = False
    ) -> Steps[tuple[Share, ...]]:
        """Have it made or handed over; then the shares that it is. `once`: nobody is to have it after this grant."""
        portion = yield from self._partitions.serve(token, found, replan, once)
        return (share_of(portion),)

    # Shown

    def use(self, grant: Grant) -> LedgerView:
        """What is in use of a grant's instance, as the driver says, in the form of a ledger's figures."""
        portion = grant.mig
        record = next((one for one in self._partitions.records() if one.token == grant.token), None)
        compute = self._node.compute(record) if record and portion else None
        return LedgerView((GpuUse(used=compute.used if compute else 0),))

    def row(self, gpu: Gpu, row: dict[str, Any]) -> dict[str, Any]:
        """A GPU's row of `gpuportion node`, with what MIG adds to it."""
        has_role = self._roles.has_mig_role(gpu.uuid)
        records = self._partitions.records()
        trouble = modes.trouble(gpu.index, has_role, self._node.reading(gpu.uuid))
        health = gpu.trouble or trouble or (self._node.stuck.get(gpu.uuid, "") if has_role else "")
        added: dict[str, Any] = {
            "mig": views.summary(self._node, gpu.uuid, records),
            "health": health or "ok",
        }
        if health:
            added["free"] = 0
        elif has_role:
            added["free"] = views.largest_free(self._node, gpu.uuid, self._partitions.instances())
        return {**row, "role": "mig" if has_role else "fraction", **added}

    def profiles(self) -> list[dict[str, Any]]:
        against = {gpu.uuid: self._against(gpu) for gpu, _ in self._node.readings()}
        return views.profiles(self._node, self._partitions.instances(), against)

    def _against(self, gpu: Gpu) -> str:
        """Why a GPU serves nobody by MIG now, "" if it does."""
        has_role = self._roles.has_mig_role(gpu.uuid)
        trouble = gpu.trouble or modes.trouble(gpu.index, has_role, self._node.reading(gpu.uuid))
        if not has_role:
            return trouble or modes.FRACTIONS.format(index=gpu.index)
        return trouble or self._node.stuck.get(gpu.uuid, "")

    def instances(self, names: views.Names) -> list[dict[str, Any]]:
        return views.instances(self._node, self._partitions.records(), names, now())

    def collect(self) -> Steps[dict[str, Any]]:
        """Remove the idle ones: what went, and what did not, with why."""
        gone, kept = yield from self._partitions.collect()
        none: Mapping[str, tuple[str, str]] = {}
        told = [{**views.of_record(self._node, one, none, now()), "why": why} for one, why in kept]
        return {"removed": [views.of_record(self._node, one, none, now()) for one in gone], "kept": told}


def share_of(portion: MigPortion) -> Share:
    return Share(portion.gpu, portion.index, portion.memory, mig=portion)
