"""What the launcher and the hook ask for a container, and the change of its limits: create, confirm, deleted, update.

A create's answer is the container's edited spec. Knows nothing of sockets, nor how a place is found (placing.py).
"""

from __future__ import annotations

import logging
from typing import Any, Final

from gpuportion import paths, wire
from gpuportion.allocator import (
    fast_json,
    fields,
    injection,
    lookup,
    mig_injection,
    names,
    policy,
    processes,
    updates,
)
from gpuportion.allocator.cdi_files import CdiFiles
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
from gpuportion.shim.image_drivers import Image
from gpuportion.shim.request import USER, Request, from_container, from_keys, is_sandbox
from gpuportion.shim.spec import change

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
        files: CdiFiles,
        mig: MigGrants,
        rules: PolicyInForce,
        placing: Placing,
    ) -> None:
        self._grants = grants
        self._view = view
        self._files = files
        self._mig = mig
        self._rules = rules
        self._placing = placing

    def create(self, peer: Peer, message: wire.Message) -> Steps[wire.Message]:
        verb, root, id = (fields.text(message, key) for key in ("verb", "root", "id"))
        if verb not in VERBS or not id or len(id) > LONGEST_ID:
            raise GpuportionError("GP304", why=f"{verb!r} of a container {id[:40]!r}")
        config, preload = fields.parts(message)
        spec = fields.spec(config)
        annotations = fields.annotations_of(spec)
        request = from_container(fields.environment(spec), annotations) or self._default(annotations)
        if request is None:
            return wire.Message({})
        name = names.name_of(id, spec)
        subject = f'container "{name or id[:12]}"'
        runtime = str(message.head.get("runtime", ""))
        policy.check_runtime(self._rules.policy, runtime, subject)
        if not stages.are_run(verb, runtime):
            raise GpuportionError("GP302", why=UNCONFIRMED)
        user = self._rules.policy.user_of(annotations.get(USER))
        self._grants.supersede(root, id, peer.pid)
        found = self._placing.place(request, subject, user)
        shares, asked = self._mig.shares(found), request.to_json()
        image = Image(fields.image_drivers(message), fields.image_mounts(message))
        creator = processes.meet(peer.pid)
        if creator is None and peer.pid > 0:
            raise GpuportionError("GP304", why="whoever asked has ended while it waited")
        intent = Intent(
            CONTAINER, shares, asked, root=root, id=id, name=name, uid=peer.uid, user=user, creator=creator
        )
        with self._placing.reserved(intent) as grant:
            if isinstance(found, Plan):
                made = yield from self._placing.made(grant, found, request, subject)
                edited = self._edit_for_mig(made, spec)
            else:
                edited = self._edit(grant, spec, preload, image)
        return wire.Message({"token": grant.token}, edited)

    def _edit_for_mig(self, grant: Grant, spec: dict[str, Any]) -> bytes:
        portion = grant.mig
        assert portion is not None
        gathered = mig_injection.gather(
            self._files.specs(),
            portion,
            token=grant.token,
            container=grant.id,
            socket=paths.socket_path(),
            before=spec,
        )
        edited = change(spec, gathered)
        for removed in edited.removed:
            log.info("%s: taken out of its spec: %s", grant.token[:8], names.printable(removed, 512))
        return fast_json.dumps(edited.spec)

    def _default(self, annotations: dict[str, str]) -> Request | None:
        """What the administrator gives a container that asks for nothing."""
        return None if is_sandbox(annotations) else self._rules.policy.default

    def _edit(self, grant: Grant, spec: dict[str, Any], preload: bytes, image: Image) -> bytes:
        specs = self._files.specs()
        minors = {gpu.uuid: gpu.minor for gpu in self._view.gpus}
        cards = [injection.Card(share.index, share.uuid, minors[share.uuid]) for share in grant.shares]
        driver = injection.driver_of(specs, cards)
        linux = spec.get("linux")
        folder = self._grants.make_pages(
            grant,
            libcuda=injection.INSIDE_LIBCUDA,
            libnvml=injection.INSIDE_LIBNVML,
            ledger=paths.INSIDE_LEDGER,
            preload=injection.preload(preload),
            label=str(linux.get("mountLabel") or "") if isinstance(linux, dict) else "",
        )
        gathered = injection.gather(
            specs,
            driver,
            folder,
            token=grant.token,
            container=grant.id,
            socket=paths.socket_path(),
            mounts=fields.mounts_of(spec),
            image=image,
        )
        edited = change(spec, gathered)
        for removed in edited.removed:
            log.info("%s: taken out of its spec: %s", grant.token[:8], names.printable(removed, 512))
        return fast_json.dumps(edited.spec)

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
