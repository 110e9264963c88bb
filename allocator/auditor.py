"""The audit of this host: asks /proc about those whom NVML lists, says in the log what was found, and by policy ends
the processes of containers that have what nobody granted them.

What counts as found is for `audit`, how somebody is ended for `ending`; here is only what a finding means. Never
touches a process that is not in a container, nor one that NVML may have meant another by (see Sample.taken)."""

from __future__ import annotations

import functools
import logging
import os
import signal
from collections.abc import Iterator, Mapping
from typing import Any, Final

from gpuportion.allocator import cgroups, processes
from gpuportion.allocator.attribution import Held
from gpuportion.allocator.audit import OVER, STRANGER, Audit, Finding
from gpuportion.allocator.containment import Container, container_of
from gpuportion.allocator.ending import GRACE, Ending
from gpuportion.allocator.grants import CONTAINER, Grants
from gpuportion.allocator.node_view import NodeView
from gpuportion.allocator.owners import Claim
from gpuportion.allocator.processes import Process
from gpuportion.allocator.store import Grant
from gpuportion.errors import GpuportionError
from gpuportion.sizes import gb

log: Final = logging.getLogger("gpuportiond")

NAMED: Final = 4
"""Processes that a sentence names before it says `and 3 more`."""

ACTIONS: Final = {None: "reported", signal.SIGTERM: "told to end", signal.SIGKILL: "killed"}


class Auditor:
    def __init__(self, view: NodeView, grants: Grants) -> None:
        self._view = view
        self._grants = grants
        self._audit = Audit()
        self._ending = Ending()

    def look(self, now: float, *, stop: bool) -> bool:
        """Audit the view's last sample; `stop`: end what may be ended. Whether another sample should come soon."""
        if self._view.is_calm and not self._audit.is_watching:
            return False
        claims = {claim.token: claim for claim in self._view.claims}
        new, over = self._audit.update(self._view.processes, claims.values(), _is_contained, now)
        for finding in new:
            log.warning("%s", self._report(finding).text)
        for finding in over:
            log.info("%s holds no more than it may on GPU %s", self._who(finding), self._index(finding))
        ends = list(self._to_end(claims, now)) if stop else []
        for process, finding in ends:
            sent = self._ending.end(process, now)
            if sent is not None:
                log.warning("%s", self._said(process, finding, sent).text)
        self._ending.keep({process for process, _ in ends})
        return self._audit.suspects or self._view.is_undecided

    def rows(self, now: float) -> Iterator[dict[str, Any]]:
        """What `gpuportion ps` shows of it; docs/protocol.md has the columns. /proc is asked as each one is taken."""
        return (self._row(finding, now) for finding in self._audit.reported)

    # Whom to end

    def _to_end(self, claims: Mapping[str, Claim], now: float) -> Iterator[tuple[Process, Finding]]:
        for finding in self._audit.reported:
            if not finding.may_be_ended(now):
                continue
            for held in finding.processes:
                if held.start and self._may_end(finding, held, claims):
                    yield Process(held.pid, held.start), finding

    def _may_end(self, finding: Finding, held: Held, claims: Mapping[str, Claim]) -> bool:
        """Looked up anew for each sample: it may have left, or its pid may be another's (its start tells that)."""
        if finding.key.kind == STRANGER:
            return _is_contained(held)
        grant, claim = self._grant(finding), claims.get(str(finding.key.who))
        if grant is None or claim is None or grant.kind != CONTAINER:
            return False
        return _is_contained(held) or _is_in(claim, held)

    # What is said

    def _grant(self, finding: Finding) -> Grant | None:
        return next((grant for grant in self._grants.live() if grant.token == finding.key.who), None)

    def _index(self, finding: Finding) -> str:
        return next((str(gpu.index) for gpu in self._view.gpus if gpu.uuid == finding.key.uuid), "?")

    def _who(self, finding: Finding) -> str:
        if finding.key.kind == STRANGER:
            (held,) = finding.processes
            inside = _container(held)
            return f"{_named(held)}" + (f" in {inside.label}" if inside else "")
        grant = self._grant(finding)
        return f'{grant.kind} "{grant.label}"' if grant else "a grant that has ended"

    def _report(self, finding: Finding) -> GpuportionError:
        who, held, gpu = self._who(finding), gb(finding.held), self._index(finding)
        if finding.key.kind == STRANGER:
            return GpuportionError("GP401", who=who, held=held, gpu=gpu)
        beyond = gb(finding.held - finding.limit)
        return GpuportionError(
            "GP402",
            who=who,
            held=held,
            gpu=gpu,
            limit=gb(finding.limit),
            beyond=beyond,
            processes=_listed(finding),
        )

    def _said(self, process: Process, finding: Finding, sent: signal.Signals) -> GpuportionError:
        named = f'process {process.pid} "{processes.name_of(process.pid)}"'
        if finding.key.kind == STRANGER:
            what = f"it holds {gb(finding.held)} of GPU {self._index(finding)} without a grant"
        else:
            what = (
                f"{self._who(finding)} holds {gb(finding.held)} of GPU {self._index(finding)}, "
                f"its grant is {gb(finding.limit)}"
            )
        then = (
            f"SIGKILL follows after {GRACE:g} s" if sent is signal.SIGTERM else f"SIGTERM was {GRACE:g} s ago"
        )
        return GpuportionError("GP403", process=named, signal=sent.name, why=what, then=then)

    def _row(self, finding: Finding, now: float) -> dict[str, Any]:
        grant = self._grant(finding) if finding.key.kind == OVER else None
        inside = _container(finding.processes[0])
        listed = [
            {"pid": held.pid, "name": processes.name_of(held.pid), "held": held.size}
            for held in finding.processes
        ]
        sent = {self._ending.sent(Process(held.pid, held.start)) for held in finding.processes}
        return {
            "kind": finding.key.kind,
            "index": next((gpu.index for gpu in self._view.gpus if gpu.uuid == finding.key.uuid), None),
            "uuid": finding.key.uuid,
            "container": grant.id if grant else inside.id if inside else "",
            "name": grant.name if grant else "",
            "engine": inside.engine if inside else "",
            "held": finding.held,
            "limit": finding.limit,
            "since_s": round(now - finding.since, 3),
            "action": next(ACTIONS[one] for one in (signal.SIGKILL, signal.SIGTERM, None) if one in sent),
            "processes": listed,
        }


@functools.lru_cache(maxsize=1)
def _own() -> tuple[dict[str, str], int]:
    return cgroups.membership(os.getpid()), processes.pid_namespace(os.getpid())


def _container(held: Held) -> Container | None:
    """The container of a process; None: it has none, or has ended meanwhile."""
    found = container_of(cgroups.membership(held.pid), processes.pid_namespace(held.pid), *_own())
    return found if processes.start_of(held.pid) == held.start else None


def _is_contained(held: Held) -> bool:
    return _container(held) is not None


def _is_in(claim: Claim, held: Held) -> bool:
    """Is it in the cgroup that the grant's container has for itself?"""
    inside = bool(claim.cgroups) and cgroups.belongs(cgroups.membership(held.pid), claim.cgroups)
    return inside and processes.start_of(held.pid) == held.start


def _named(held: Held) -> str:
    return f'process {held.pid} "{processes.name_of(held.pid)}"'


def _listed(finding: Finding) -> str:
    """`4711 "python" 6.00 GB, 12 "nccl" 0.10 GB and 3 more`, the largest first."""
    largest = sorted(finding.processes, key=lambda held: -held.size)
    named = [f'{held.pid} "{processes.name_of(held.pid)}" {gb(held.size)}' for held in largest[:NAMED]]
    return ", ".join(named) + (f" and {len(largest) - NAMED} more" if len(largest) > NAMED else "")
