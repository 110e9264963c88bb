"""Operations that change nothing: what is granted and used, why something was refused, what the rules are.

A user sees what `visibility` lets it. Knows nothing of sockets.
"""

from __future__ import annotations

import os
import time
from typing import Any

from gpuportion import wire
from gpuportion.allocator import fields, listing, lookup, pages, rows, visibility
from gpuportion.allocator.auditor import Auditor
from gpuportion.allocator.devices import NOTHING
from gpuportion.allocator.grants import Grants, now
from gpuportion.allocator.mig_grants import MigGrants
from gpuportion.allocator.node_view import NodeView
from gpuportion.allocator.peer import Peer
from gpuportion.allocator.pending import Steps
from gpuportion.allocator.policy_in_force import PolicyInForce
from gpuportion.allocator.store import Grant
from gpuportion.allocator.turns import Turns


class Questions:
    def __init__(
        self,
        grants: Grants,
        view: NodeView,
        mig: MigGrants,
        rules: PolicyInForce,
        auditor: Auditor,
        turns: Turns,
        version: str,
    ) -> None:
        self._grants = grants
        self._view = view
        self._mig = mig
        self._rules = rules
        self._auditor = auditor
        self._turns = turns
        self._version = version

    def why(self, peer: Peer, message: wire.Message) -> wire.Message:
        grant = lookup.find(self._seen(peer), fields.text(message, "container"))
        view = self._use(grant)
        return wire.Message(rows.of_refusals(grant, view, time.time()))

    def ps(self, peer: Peer, message: wire.Message) -> Steps[wire.Message]:
        began = now()

        def row(grant: Grant, view: pages.LedgerView) -> dict[str, Any]:
            return rows.of_grant(grant, view, began, with_token=peer.uid == 0)

        sees_all = visibility.sees_all(self._rules.policy, str(peer.uid))
        findings = self._auditor.rows(began) if sees_all else ()
        turn = self._turns.begin()
        text = yield from listing.put_together(lambda: self._seen(peer), self._use, row, findings, turn)
        return wire.Message({}, text=text)

    def _seen(self, peer: Peer) -> list[Grant]:
        return visibility.of(self._grants.live(), self._rules.policy, str(peer.uid))

    def node(self, peer: Peer, message: wire.Message) -> wire.Message:
        loads = self._grants.tally.loads
        gpus = [self._mig.row(gpu, rows.of_gpu(gpu, loads.get(gpu.uuid, NOTHING))) for gpu in self._view.gpus]
        return wire.Message({"gpus": gpus, "driver": self._view.driver, "trouble": self._view.trouble})

    def _use(self, grant: Grant) -> pages.LedgerView:
        if grant.mig:
            return self._mig.use(grant)
        return pages.read_ledger(self._grants.ledger(grant), len(grant.shares))

    def mig_profiles(self, peer: Peer, message: wire.Message) -> wire.Message:
        return wire.Message({"gpus": self._mig.profiles()})

    def mig_list(self, peer: Peer, message: wire.Message) -> wire.Message:
        known = {grant.token: (grant.id, grant.name) for grant in self._seen(peer)}
        return wire.Message({"instances": self._mig.instances(known)})

    def config(self, peer: Peer, message: wire.Message) -> wire.Message:
        return wire.Message(self._rules.shown())

    def ping(self, peer: Peer, message: wire.Message) -> wire.Message:
        return wire.Message({"version": self._version, "pid": os.getpid(), "ready": True})
