"""Gives a living grant other amounts: gathers what `resizing` decides by, and lets `grants` do it."""

from __future__ import annotations

from collections.abc import Sequence

from gpuportion.allocator import pages, policy, resizing
from gpuportion.allocator.devices import Share
from gpuportion.allocator.grants import Grants
from gpuportion.allocator.lifecycle import State
from gpuportion.allocator.node_view import NodeView
from gpuportion.allocator.policy import Policy
from gpuportion.allocator.store import Grant
from gpuportion.errors import GpuportionError


def update(
    grants: Grants, view: NodeView, rules: Policy, grant: Grant, amounts: Sequence[int], *, force: bool
) -> Grant:
    """`grant` with `amounts` in bytes, one for all of its GPUs or one for each. GpuportionError if it can't be."""
    if grant.mig:
        what = f"it is the MIG instance {grant.mig.profile} of GPU {grant.mig.index}"
        hint = " Start the container anew with another amount."
        raise GpuportionError("GP111", what=what, why="the size of an instance can't be changed.", hint=hint)
    if grant.state is not State.ACTIVE:
        why = "it is being created. Ask again when it runs."
        raise GpuportionError("GP305", what=f"a running container {grant.label!r}", why=why)
    held = view.held(grant.token)
    shares = resizing.resized(
        {gpu.uuid: gpu for gpu in view.gpus},
        grants.holdings(but=grant),
        grant.shares,
        amounts,
        _used(grants, grant, held),
        {share.uuid: max(0, held.get(share.uuid, 0) - share.limit) for share in grant.shares},
        rules.rules,
        force=force,
    )
    if any(new.limit > old.limit for new, old in zip(shares, grant.shares, strict=True)):
        _check_rules(grants, rules, grant, shares)
    return grants.resize(grant, shares)


def _used(grants: Grants, grant: Grant, held: dict[str, int]) -> dict[str, int]:
    """Bytes by UUID: what the container says, or the driver, whichever is more."""
    view = pages.read_ledger(grants.ledger(grant), len(grant.shares))
    uses = zip(grant.shares, view.gpus, strict=True)
    return {share.uuid: max(use.used, held.get(share.uuid, 0)) for share, use in uses}


def _check_rules(grants: Grants, rules: Policy, grant: Grant, shares: Sequence[Share]) -> None:
    live = [one for one in grants.tally.of_owner(grant.owner) if one.token != grant.token]
    subject = f"the larger grant of {grant.label!r}"
    policy.check_shares(rules, shares, grant.owner, [one.shares for one in live], subject)
