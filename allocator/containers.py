"""What the launcher and the hook ask for a container, and the change of its limits: create, confirm, deleted, update.

A create's answer is the container's edited spec. Knows nothing of sockets, nor how a place is found (placing.py).
"""

from __future__ import annotations

import logging
from typing import Final

from gpuportion import paths, wire
from gpuportion.allocator import (
    fields,
    injection,
    lookup,
    policy,
    processes,
    updates,
)
from gpuportion.allocator.editor.link import Asked, Editor, about_a_spec
from gpuportion.allocator.grant import Intent
from gpuportion.allocator.grants import CONTAINER, Grants
from gpuportion.allocator.mig.planner import Plan
from gpuportion.allocator.mig_grants import MigGrants
from gpuportion.allocator.node_view import NodeView
from gpuportion.allocator.peer import Peer
from gpuportion.allocator.pending import Steps
from gpuportion.allocator.placing import Placing, sizes
from gpuportion.allocator.policy_in_force import PolicyInForce
from gpuportion.allocator.store import Grant
from gpuportion.errors import GpuportionError
from gpuportion.hooks import stages
from gpuportion.shim.request import Request, from_keys

log: Final = logging.getLogger("gpuportiond")

UNCONFIRMED: Final = (
    "crun restores a container without calling its hooks, so nobody could tell when its grant begins and ends; "
    "restore it with runc, or start it anew"
)

VERBS: Final = ("create", "run", "restore")
LONGEST_ID: Final = 1024


class Containers:
    def __init__(
        self,
        grants: Grants,
        view: NodeView,
        editor: Editor,
        mig: MigGrants,
        rules: PolicyInForce,
        placing: Placing,
    ) -> None:
        self._grants = grants
        self._view = view
        self._editor = editor
        self._mig = mig
        self._rules = rules
        self._placing = placing

    def create(self, peer: Peer, message: wire.Message) -> Steps[wire.Message]:
        verb, root, id = (fields.text(message, key) for key in ("verb", "root", "id"))
        if verb not in VERBS or not id or len(id) > LONGEST_ID:
            raise GpuportionError("GP304", why=f"{verb!r} of a container {id[:40]!r}")
        with processes.meeting(peer.pid) as creator, about_a_spec(self._editor) as spec:
            if creator is None and peer.pid > 0:
                raise GpuportionError("GP304", why="whoever asked has ended while it waited")
            config, preload = fields.parts(message)
            asked = yield from spec.read(config, id, message.head)
            request = self._request(asked)
            if request is None:
                return wire.Message({})
            runtime = str(message.head.get("runtime", ""))
            subject = f'container "{asked.name or id[:12]}"'
            policy.check_runtime(self._rules.policy, runtime, subject)
            if not stages.are_run(verb, runtime):
                raise GpuportionError("GP302", why=UNCONFIRMED)
            user = self._rules.policy.user_of(asked.user)
            self._grants.supersede(root, id, peer.pid)
            found = self._placing.place(request, subject, user)
            intent = Intent(
                CONTAINER,
                self._mig.shares(found),
                request.to_json(),
                root=root,
                id=id,
                name=asked.name,
                uid=peer.uid,
                user=user,
                creator=creator and creator.again(),
            )
            with self._placing.reserved(intent) as grant:
                if isinstance(found, Plan):
                    made = yield from self._placing.made(grant, found, request, subject)
                    begun = spec.begin_edit_for_mig(made)
                else:
                    minors = {gpu.uuid: gpu.minor for gpu in self._view.gpus}
                    begun = spec.begin_edit(grant, self._grants.folder(grant), minors)
                    self._make_pages(grant, asked.label, preload)
                edited = yield from spec.edited(begun)
                for removed in edited.removed:
                    log.info("%s: taken out of its spec: %s", grant.token[:8], removed)
        return wire.Message({"token": grant.token}, edited.config)

    def _request(self, asked: Asked) -> Request | None:
        """What it asks for, or what the administrator gives a container that asks for nothing."""
        return asked.request or (None if asked.is_sandbox else self._rules.policy.default)

    def _make_pages(self, grant: Grant, label: str, preload: bytes) -> None:
        self._grants.make_pages(
            grant,
            libcuda=injection.INSIDE_LIBCUDA,
            libnvml=injection.INSIDE_LIBNVML,
            ledger=paths.INSIDE_LEDGER,
            preload=injection.preload(preload),
            label=label,
        )

    def confirm(self, peer: Peer, message: wire.Message) -> wire.Message:
        pid = message.head.get("pid")
        if len(message.fds) != 1 or not isinstance(pid, int):
            raise GpuportionError("GP304", why="confirm needs a pid and one descriptor, its pidfd")
        grant = self._grants.confirm(fields.text(message, "token"), pid, message.fds[0], peer.pid)
        log.info("active %s %s: process %d", grant.token[:8], grant.label, pid)
        return wire.Message({})

    def deleted(self, peer: Peer, message: wire.Message) -> wire.Message:
        for grant in self._grants.find(fields.text(message, "root"), fields.text(message, "id")):
            self._grants.hint(grant.token)
        return wire.Message({})

    def update(self, peer: Peer, message: wire.Message) -> wire.Message:
        grant = lookup.find(self._grants.live(), fields.text(message, "container"))
        amounts = from_keys({"GPU_MEMORY_LIMIT": fields.text(message, "memory")}).memory
        force = message.head.get("force") is True
        grant = updates.update(self._grants, self._view, self._rules.policy, grant, amounts, force=force)
        log.info("resized %s %s: %s", grant.token[:8], grant.label, sizes(grant))
        gpus = [{"index": one.index, "uuid": one.uuid, "limit": one.limit} for one in grant.shares]
        return wire.Message({"container": grant.id, "name": grant.name, "gpus": gpus})
