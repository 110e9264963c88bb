"""Operations that change which GPUs are for MIG, and collect idle instances: mig-gc, set-role, remove-role."""

from __future__ import annotations

from collections.abc import Sequence

from gpuportion import wire
from gpuportion.allocator import fields
from gpuportion.allocator.devices import Gpu
from gpuportion.allocator.mig_grants import MigGrants
from gpuportion.allocator.node_view import NodeView
from gpuportion.allocator.peer import Peer
from gpuportion.allocator.pending import Steps
from gpuportion.errors import GpuportionError
from gpuportion.shim.request import Role


class MigChanges:
    def __init__(self, view: NodeView, mig: MigGrants) -> None:
        self._view = view
        self._mig = mig

    def gc(self, peer: Peer, message: wire.Message) -> Steps[wire.Message]:
        return wire.Message((yield from self._mig.collect()))

    def set_role(self, peer: Peer, message: wire.Message) -> Steps[wire.Message]:
        given = yield from self._mig.changes.give(self._gpus(), _gpus_of_role(message))
        return wire.Message({"gpus": given})

    def remove_role(self, peer: Peer, message: wire.Message) -> Steps[wire.Message]:
        taken = yield from self._mig.changes.take(self._gpus(), _gpus_of_role(message))
        return wire.Message({"gpus": taken})

    def _gpus(self) -> Sequence[Gpu]:
        try:
            return self._view.need_gpus()
        except GpuportionError as refusal:
            raise GpuportionError("GP112", what="this node's GPUs", why=refusal.values["why"]) from None


def _gpus_of_role(message: wire.Message) -> list[str]:
    """The words for GPUs of a message about the one role that there is to be given."""
    role = fields.text(message, "role")
    if role != Role.MIG.value:
        raise GpuportionError("GP304", why=f"no role is called {role[:40]!r}")
    return fields.texts(message, "gpus")
