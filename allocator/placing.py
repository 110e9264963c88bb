"""From a request to a reservation: where it has a place within the rules, and holding that place until all is made.

The same for containers and for processes of the host. Knows nothing of messages or specs.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from typing import Final

from gpuportion.allocator import injection, placement, policy, visibility
from gpuportion.allocator.devices import Share
from gpuportion.allocator.grant import Intent
from gpuportion.allocator.grants import Grants
from gpuportion.allocator.mig.planner import Plan, Spot
from gpuportion.allocator.mig_grants import MigGrants
from gpuportion.allocator.no_room import Refusal
from gpuportion.allocator.node_view import NodeView
from gpuportion.allocator.pending import Steps
from gpuportion.allocator.placement import Placement
from gpuportion.allocator.policy_in_force import PolicyInForce
from gpuportion.allocator.pool import Pool
from gpuportion.allocator.store import Grant
from gpuportion.errors import GpuportionError
from gpuportion.shim.request import Request

log: Final = logging.getLogger("gpuportiond")

MAY_PASS: Final = ("GP101", "GP110")
"""Refusals that may be over when those who have ended are known to have."""


class Placing:
    def __init__(self, grants: Grants, view: NodeView, mig: MigGrants, rules: PolicyInForce) -> None:
        self._grants = grants
        self._view = view
        self._mig = mig
        self._rules = rules

    def place(self, request: Request, subject: str, user: str) -> Placement | Plan:
        """What serves `request` within the rules for `user`. Only where something stands in the way is it
        worth a look at who may have ended unnoticed."""
        self._view.need_gpus()
        injection.programs()
        policy.check_request(self._rules.policy, request, subject)
        try:
            return self._placed(request, subject, user)
        except GpuportionError as refusal:
            if refusal.code not in MAY_PASS:
                raise
        self._grants.look_at_ending()
        return self._placed(request, subject, user)

    def _placed(self, request: Request, subject: str, user: str) -> Placement | Plan:
        rules = self._rules.policy

        def by_fraction(pool: Pool) -> Placement | Refusal:
            held = visibility.held(self._grants.tally, self._grants.live, rules, user)
            return placement.plan(pool, held, request, rules.rules, self._view.context)

        found = self._mig.choose(request, subject, self._view.need_gpus(), by_fraction)
        self.check_shares(self._mig.shares(found), user, subject)
        return found

    def check_shares(
        self, shares: Sequence[Share], user: str, subject: str, but: Grant | None = None
    ) -> None:
        """GpuportionError GP110: the rules don't let `user` have these, beside what it has `but` one grant."""
        policy.check_shares(self._rules.policy, shares, user, self._owned(user, but), subject)

    def _owned(self, user: str, but: Grant | None) -> list[tuple[Share, ...]]:
        """The shares of each grant of `user`; nothing where no rule asks for them."""
        if self._rules.policy.limits_of(user) == policy.NO_LIMITS:
            return []
        mine = self._grants.tally.of_owner(user)
        return [grant.shares for grant in mine if but is None or grant.token != but.token]

    def made(
        self, grant: Grant, found: Plan, request: Request, subject: str, *, once: bool = False
    ) -> Steps[Grant]:
        """The grant with its MIG instance: of the plan, or of another one if the driver has no room there. `once`:
        nobody is to have the instance after it."""

        def again(avoid: frozenset[Spot]) -> Plan:
            other = self._mig.again(request, subject, avoid)
            shares = self._mig.shares(other)
            self.check_shares(shares, grant.owner, subject, but=grant)
            self._grants.promise(grant, shares)
            return other

        shares = yield from self._mig.serve(grant.token, found, again, once=once)
        return self._grants.promise(grant, shares)

    @contextlib.contextmanager
    def reserved(self, intent: Intent) -> Iterator[Grant]:
        """A reservation that is undone if what has to be made for it cannot be."""
        grant = self._grants.reserve(intent)
        try:
            yield grant
        except BaseException as problem:
            self._grants.undo(grant)
            if not isinstance(problem, OSError):
                raise
            why = f"{problem.filename or 'a system call'}: {problem.strerror}. Nothing is held for it."
            raise GpuportionError("GP306", what="making the files of the grant", why=why) from problem
        log.info("granted %s %s %s: %s", grant.token[:8], grant.kind, grant.label, sizes(grant))


def sizes(grant: Grant) -> str:
    """What it is, in words for the log."""
    if grant.mig:
        return f"{grant.mig.profile} with {grant.mig.memory >> 20} MiB of GPU {grant.mig.index}"
    return " + ".join(f"{share.limit >> 20} MiB of GPU {share.index}" for share in grant.shares)
