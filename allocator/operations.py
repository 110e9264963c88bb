"""What the daemon does for each operation of docs/protocol.md: a Message in, a Message out.

Who may ask what is a column of the table at the end. A refusal is a GpuportionError. Knows nothing of sockets
beyond who is at the other end.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from gpuportion import paths, wire
from gpuportion.allocator import (
    fields,
    injection,
    lookup,
    mig_injection,
    names,
    pages,
    placement,
    policy,
    processes,
    rows,
    updates,
    visibility,
)
from gpuportion.allocator.auditor import Auditor
from gpuportion.allocator.cdi_files import CdiFiles
from gpuportion.allocator.devices import Gpu, Share
from gpuportion.allocator.fault_points import here
from gpuportion.allocator.grants import CONTAINER, PROCESS, Grants, Intent, now
from gpuportion.allocator.host_portion import CUDA, NVML, HostPortions
from gpuportion.allocator.mig.planner import Plan, Spot
from gpuportion.allocator.mig_grants import MigGrants, kept_from_mig
from gpuportion.allocator.no_room import Refusal
from gpuportion.allocator.node_view import NodeView
from gpuportion.allocator.pending import Steps, Wait, drive
from gpuportion.allocator.placement import Placement
from gpuportion.allocator.policy_in_force import PolicyInForce
from gpuportion.allocator.store import FullStoreError, Grant
from gpuportion.errors import GpuportionError
from gpuportion.hooks import stages
from gpuportion.shim.image_drivers import Found
from gpuportion.shim.request import USER, Request, Role, from_container, from_keys, is_sandbox
from gpuportion.shim.spec import change

log: Final = logging.getLogger("gpuportiond")

ENCODE: Final = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode
"""Of a spec: it came as JSON, so it is no circle."""

UNCONFIRMED: Final = (
    "crun restores a container without calling its hooks, so nobody could tell when its grant begins and ends; "
    "restore it with runc, or start it anew"
)

PROTOCOL: Final = 1
VERBS: Final = ("create", "run", "restore")
LONGEST_ID: Final = 1024

MAY_PASS: Final = ("GP101", "GP110")
"""Refusals that may be over when those who have ended are known to have."""


@dataclasses.dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end, as the kernel says. `pid` is 0 where it is in no pid namespace of ours."""

    pid: int
    uid: int
    gid: int


class Operations:
    def __init__(
        self,
        grants: Grants,
        view: NodeView,
        files: CdiFiles,
        portions: HostPortions,
        mig: MigGrants,
        rules: PolicyInForce,
        auditor: Auditor,
        version: str,
    ) -> None:
        self._grants = grants
        self._view = view
        self._files = files
        self._portions = portions
        self._mig = mig
        self._rules = rules
        self._auditor = auditor
        self._version = version

    def answer(self, peer: Peer, message: wire.Message) -> Wait[wire.Message]:
        """The answer to one request, mostly at once; never raises. Descriptors of the message stay the caller's."""
        return drive(self._answered(peer, message))

    def _answered(self, peer: Peer, message: wire.Message) -> Steps[wire.Message]:
        try:
            operation, root_only = _operation(message.head)
            if root_only and peer.uid != 0:
                raise GpuportionError("GP303", why=f"only root may ask for this, not user {peer.uid}")
            answer = operation(self, peer, message)
            return answer if isinstance(answer, wire.Message) else (yield from answer)
        except GpuportionError as refusal:
            text = plain(refusal.text)
            log.info("refused (uid %d): %s", peer.uid, text)
            return wire.Message({}, text.encode(), wire.REFUSED)
        except FullStoreError as problem:
            log.error("%s: %s", problem.filename, problem.strerror)
            why = f"{problem.filename}: {problem.strerror}. Make room there; nothing was changed"
            full = GpuportionError("GP306", what="writing the grant down", why=f"{why}.")
            return wire.Message({}, full.text.encode(), wire.REFUSED)
        except Exception:
            log.exception("a bug, met by %r", message.head.get("op"))
            why = "the daemon met an error of its own; its log has it (journalctl -u gpuportiond)"
            failure = GpuportionError("GP306", what=f"the operation {message.head.get('op')!r}", why=why)
            return wire.Message({}, failure.text.encode(), wire.REFUSED)

    # Containers

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
        creator = processes.peer(peer.pid)
        if creator is None and peer.pid > 0:
            raise GpuportionError("GP304", why="whoever asked has ended while it waited")
        self._grants.supersede(root, id, creator)
        found = self._place(request, subject, user)
        shares, asked = self._mig.shares(found), request.to_json()
        intent = Intent(
            CONTAINER, shares, asked, root=root, id=id, name=name, uid=peer.uid, user=user, creator=creator
        )
        drivers = fields.image_drivers(message)
        with self._reserved(intent) as grant:
            if isinstance(found, Plan):
                made = yield from self._made(grant, found, request, subject)
                edited = self._edit_for_mig(made, spec)
            else:
                edited = self._edit(grant, spec, preload, drivers)
        return wire.Message({"token": grant.token}, edited)

    def _made(self, grant: Grant, found: Plan, request: Request, subject: str) -> Steps[Grant]:
        """The grant with its MIG instance: of the plan, or of another one if the driver has no room there."""

        def again(avoid: frozenset[Spot]) -> Plan:
            other = self._mig.again(request, subject, avoid)
            shares = self._mig.shares(other)
            self._check_shares(shares, grant.owner, subject, but=grant)
            self._grants.promise(grant, shares)
            return other

        shares = yield from self._mig.serve(grant.token, found, again)
        return self._grants.promise(grant, shares)

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
        return ENCODE(edited.spec).encode()

    def _default(self, annotations: dict[str, str]) -> Request | None:
        """What the administrator gives a container that asks for nothing."""
        return None if is_sandbox(annotations) else self._rules.policy.default

    def _edit(self, grant: Grant, spec: dict[str, Any], preload: bytes, drivers: tuple[Found, ...]) -> bytes:
        specs = self._files.specs()
        edits = injection.device_edits(specs, grant.shares)
        linux = spec.get("linux")
        folder = self._grants.make_pages(
            grant,
            libcuda=injection.INSIDE_LIBCUDA,
            libnvml=injection.INSIDE_LIBNVML,
            ledger=paths.INSIDE_LEDGER,
            label=str(linux.get("mountLabel") or "") if isinstance(linux, dict) else "",
        )
        injection.write_preload(folder, preload)
        gathered = injection.gather(
            specs,
            edits,
            folder,
            token=grant.token,
            container=grant.id,
            socket=paths.socket_path(),
            mounts=fields.mounts_of(spec),
            drivers=drivers,
        )
        edited = change(spec, gathered)
        for removed in edited.removed:
            log.info("%s: taken out of its spec: %s", grant.token[:8], names.printable(removed, 512))
        return ENCODE(edited.spec).encode()

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

    # Plain processes

    def exec(self, peer: Peer, message: wire.Message) -> wire.Message:
        request = from_keys(fields.keys(message.head.get("request")))
        mounts = message.head.get("mounts") is True
        if len(message.fds) != 1:
            raise GpuportionError("GP304", why="exec needs one descriptor, a pidfd of the caller")
        caller = processes.identify(message.fds[0])
        if caller is None or caller.pid != peer.pid:
            raise GpuportionError("GP304", why="the descriptor is no pidfd of the caller")
        name = names.printable(fields.text(message, "argv0"))
        user = str(peer.uid)
        found = self._place(kept_from_mig(request), f'process {caller.pid} "{name}"', user)
        shares = self._mig.shares(found)
        intent = Intent(
            PROCESS,
            shares,
            request.to_json(),
            id=f"pid-{caller.pid}",
            name=name,
            uid=peer.uid,
            user=user,
            creator=caller,
        )
        with self._reserved(intent) as grant:
            folder = self._grants.make_pages(
                grant,
                libcuda=self._portions.driver_file(grant.token, CUDA),
                libnvml=self._portions.driver_file(grant.token, NVML),
                ledger=self._grants.ledger(grant),
            )
            # What it starts may run as any user, so every user of the host can reach it (docs/limits.md).
            os.chmod(os.path.dirname(self._grants.ledger(grant)), 0o711)
            portion = self._portions.make(grant.token, folder, mounts)
            here("portion-made")
            self._grants.confirm(grant.token, caller.pid, message.fds[0], beside=caller.pid)
        binds = [{"source": source, "target": target} for source, target in portion.mounts]
        # Nothing keeps the host's other GPUs from the process; named here, device 0 is one that it may use.
        env = {**portion.env, "CUDA_VISIBLE_DEVICES": ",".join(share.uuid for share in shares)}
        head = {"token": grant.token, "folder": portion.folder, "env": env, "mounts": binds}
        return wire.Message(head)

    # Both

    def _place(self, request: Request, subject: str, user: str) -> Placement | Plan:
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
        gpus, rules = self._view.need_gpus(), self._rules.policy

        def by_fraction(some: Sequence[Gpu]) -> Placement | Refusal:
            held = visibility.holdings(self._grants.live(), rules, user)
            return placement.plan(some, held, request, rules.rules)

        found = self._mig.choose(request, subject, gpus, by_fraction)
        self._check_shares(self._mig.shares(found), user, subject)
        if isinstance(found, Plan):
            return found
        models = {gpu.uuid: gpu.model for gpu in gpus}
        return Placement(
            tuple(
                dataclasses.replace(share, context=self._view.context(models[share.uuid]))
                for share in found.shares
            )
        )

    def _check_shares(
        self, shares: Sequence[Share], user: str, subject: str, but: Grant | None = None
    ) -> None:
        live = [grant for grant in self._grants.live() if but is None or grant.token != but.token]
        held = [grant.shares for grant in live if grant.owner == user]
        policy.check_shares(self._rules.policy, shares, user, held, subject)

    @contextlib.contextmanager
    def _reserved(self, intent: Intent) -> Iterator[Grant]:
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
        log.info("granted %s %s %s: %s", grant.token[:8], grant.kind, grant.label, _sizes(grant))

    def update(self, peer: Peer, message: wire.Message) -> wire.Message:
        grant = lookup.find(self._grants.live(), fields.text(message, "container"))
        amounts = from_keys({"GPU_MEMORY_LIMIT": fields.text(message, "memory")}).memory
        force = message.head.get("force") is True
        grant = updates.update(self._grants, self._view, self._rules.policy, grant, amounts, force=force)
        log.info("resized %s %s: %s", grant.token[:8], grant.label, _sizes(grant))
        gpus = [{"index": one.index, "uuid": one.uuid, "limit": one.limit} for one in grant.shares]
        return wire.Message({"container": grant.id, "name": grant.name, "gpus": gpus})

    # Questions

    def why(self, peer: Peer, message: wire.Message) -> wire.Message:
        grant = lookup.find(self._seen(peer), fields.text(message, "container"))
        view = self._use(grant)
        return wire.Message(rows.of_refusals(grant, view, time.time()))

    def ps(self, peer: Peer, message: wire.Message) -> wire.Message:
        found = []
        for grant in self._seen(peer):
            view = self._use(grant)
            found.append(rows.of_grant(grant, view, now(), with_token=peer.uid == 0))
        findings = self._auditor.rows(now()) if visibility.sees_all(self._rules.policy, str(peer.uid)) else []
        return wire.Message({"grants": found, "findings": findings})

    def _seen(self, peer: Peer) -> list[Grant]:
        return visibility.of(self._grants.live(), self._rules.policy, str(peer.uid))

    def node(self, peer: Peer, message: wire.Message) -> wire.Message:
        holdings = self._grants.holdings()
        gpus = [self._mig.row(gpu, rows.of_gpu(gpu, holdings)) for gpu in self._view.gpus]
        return wire.Message({"gpus": gpus, "driver": self._view.driver, "trouble": self._view.trouble})

    def _use(self, grant: Grant) -> pages.LedgerView:
        if grant.mig:
            return self._mig.use(grant)
        return pages.read_ledger(self._grants.ledger(grant), len(grant.shares))

    # MIG

    def mig_profiles(self, peer: Peer, message: wire.Message) -> wire.Message:
        return wire.Message({"gpus": self._mig.profiles()})

    def mig_list(self, peer: Peer, message: wire.Message) -> wire.Message:
        known = {grant.token: (grant.id, grant.name) for grant in self._seen(peer)}
        return wire.Message({"instances": self._mig.instances(known)})

    def mig_gc(self, peer: Peer, message: wire.Message) -> Steps[wire.Message]:
        return wire.Message((yield from self._mig.collect()))

    def set_role(self, peer: Peer, message: wire.Message) -> Steps[wire.Message]:
        given = yield from self._mig.changes.give(self._view.need_gpus(), _gpus_of_role(message))
        return wire.Message({"gpus": given})

    def remove_role(self, peer: Peer, message: wire.Message) -> Steps[wire.Message]:
        taken = yield from self._mig.changes.take(self._view.need_gpus(), _gpus_of_role(message))
        return wire.Message({"gpus": taken})

    def config(self, peer: Peer, message: wire.Message) -> wire.Message:
        return wire.Message(self._rules.shown())

    def ping(self, peer: Peer, message: wire.Message) -> wire.Message:
        return wire.Message({"version": self._version, "pid": os.getpid(), "ready": True})


def _gpus_of_role(message: wire.Message) -> list[str]:
    """The words for GPUs of a message about the one role that there is to be given."""
    role = fields.text(message, "role")
    if role != Role.MIG.value:
        raise GpuportionError("GP304", why=f"no role is called {role[:40]!r}")
    return fields.texts(message, "gpus")


def _sizes(grant: Grant) -> str:
    if grant.mig:
        return f"{grant.mig.profile} with {grant.mig.memory >> 20} MiB of GPU {grant.mig.index}"
    return " + ".join(f"{share.limit >> 20} MiB of GPU {share.index}" for share in grant.shares)


Operation = Callable[[Operations, Peer, wire.Message], "wire.Message | Steps[wire.Message]"]

OPERATIONS: Final[dict[str, tuple[Operation, bool]]] = {
    # op: (what is done, only for root)
    "create": (Operations.create, True),
    "confirm": (Operations.confirm, True),
    "deleted": (Operations.deleted, True),
    "exec": (Operations.exec, False),
    "update": (Operations.update, True),
    "why": (Operations.why, False),
    "ps": (Operations.ps, False),
    "node": (Operations.node, False),
    "config": (Operations.config, False),
    "mig-profiles": (Operations.mig_profiles, False),
    "mig-list": (Operations.mig_list, False),
    "mig-gc": (Operations.mig_gc, True),
    "set-role": (Operations.set_role, True),
    "remove-role": (Operations.remove_role, True),
    "ping": (Operations.ping, False),
}


PHRASES: Final = (
    # docker takes these, in any case, for other troubles and changes its exit status and advice
    (re.compile("no such file or directory", re.IGNORECASE), "it is not there"),
    (re.compile("permission denied", re.IGNORECASE), "it is not permitted"),
    (re.compile("executable file not found", re.IGNORECASE), "the program is not there"),
)


def plain(text: str) -> str:
    """The text without phrases that mean something to engines, nor halves of characters, which JSON can hold and a
    frame can't."""
    for phrase, instead in PHRASES:
        text = phrase.sub(instead, text)
    return text.encode(errors="backslashreplace").decode()


def _operation(head: dict[str, Any]) -> tuple[Operation, bool]:
    if head.get("v") != PROTOCOL:
        raise GpuportionError("GP304", why=f"it is of protocol {head.get('v')!r}; this daemon has {PROTOCOL}")
    found = OPERATIONS.get(str(head.get("op")))
    if found is None:
        raise GpuportionError("GP304", why=f"no operation is called {str(head.get('op'))[:40]!r}")
    return found
