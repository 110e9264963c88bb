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
from collections.abc import Callable, Iterator
from typing import Any, Final

from gpuportion import paths, wire
from gpuportion.allocator import injection, names, pages, placement, processes
from gpuportion.allocator.cdi_files import CdiFiles
from gpuportion.allocator.devices import Share, free
from gpuportion.allocator.grants import CONTAINER, PROCESS, Grants, Intent, now
from gpuportion.allocator.host_portion import CUDA, NVML, HostPortions
from gpuportion.allocator.lifecycle import State
from gpuportion.allocator.node_view import NodeView
from gpuportion.allocator.store import Grant
from gpuportion.errors import GpuportionError
from gpuportion.shim.request import Request, from_container, from_keys
from gpuportion.shim.spec import change

log: Final = logging.getLogger("gpuportiond")

ENCODE: Final = json.JSONEncoder(separators=(",", ":")).encode
PROTOCOL: Final = 1
VERBS: Final = ("create", "run", "restore")
LONGEST_ID: Final = 1024


@dataclasses.dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end, as the kernel says. `pid` is 0 where it is in no pid namespace of ours."""

    pid: int
    uid: int
    gid: int


class Operations:
    def __init__(
        self, grants: Grants, view: NodeView, files: CdiFiles, portions: HostPortions, version: str
    ) -> None:
        self._grants = grants
        self._view = view
        self._files = files
        self._portions = portions
        self._version = version

    def answer(self, peer: Peer, message: wire.Message) -> wire.Message:
        """The answer to one request; never raises. Descriptors of the message stay the caller's."""
        try:
            operation, root_only = _operation(message.head)
            if root_only and peer.uid != 0:
                raise GpuportionError("GP303", why=f"only root may ask for this, not user {peer.uid}")
            return operation(self, peer, message)
        except GpuportionError as refusal:
            log.info("refused (uid %d): %s", peer.uid, refusal.text)
            return wire.Message({}, refusal.text.encode(), wire.REFUSED)
        except Exception:
            log.exception("a bug, met by %r", message.head.get("op"))
            why = "the daemon met an error of its own; its log has it (journalctl -u gpuportiond)"
            failure = GpuportionError("GP306", what=f"the operation {message.head.get('op')!r}", why=why)
            return wire.Message({}, failure.text.encode(), wire.REFUSED)

    # Containers

    def create(self, peer: Peer, message: wire.Message) -> wire.Message:
        verb, root, id = _text(message, "verb"), _text(message, "root"), _text(message, "id")
        if verb not in VERBS or not id or len(id) > LONGEST_ID:
            raise GpuportionError("GP304", why=f"{verb!r} of a container {id[:40]!r}")
        config, preload = _parts(message)
        spec = _spec(config)
        request = from_container(_env(spec), _annotations(spec))
        if request is None:
            return wire.Message({})
        name = names.name_of(id, spec)
        known = processes.open_peer(peer.pid)
        pidfd, creator = known or (None, None)
        try:
            self._grants.supersede(root, id, creator)
            shares = self._place(request, f'container "{name or id[:12]}"')
        except BaseException:
            if pidfd is not None:
                os.close(pidfd)
            raise
        intent = Intent(CONTAINER, shares, root=root, id=id, name=name, uid=peer.uid, creator=creator)
        with self._reserved(intent, pidfd) as grant:
            edited = self._edit(grant, spec, preload)
        return wire.Message({"token": grant.token}, edited)

    def _edit(self, grant: Grant, spec: dict[str, Any], preload: bytes) -> bytes:
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
        )
        edited = change(spec, gathered)
        for removed in edited.removed:
            log.info("%s: taken out of its spec: %s", grant.token[:8], removed)
        return ENCODE(edited.spec).encode()

    def confirm(self, peer: Peer, message: wire.Message) -> wire.Message:
        pid = message.head.get("pid")
        if len(message.fds) != 1 or not isinstance(pid, int):
            raise GpuportionError("GP304", why="confirm needs a pid and one descriptor, its pidfd")
        grant = self._grants.confirm(_text(message, "token"), pid, message.fds[0], peer.pid)
        log.info("active %s %s: process %d", grant.token[:8], grant.label, pid)
        return wire.Message({})

    def stopped(self, peer: Peer, message: wire.Message) -> wire.Message:
        self._grants.hint(_text(message, "token"))
        return wire.Message({})

    def deleted(self, peer: Peer, message: wire.Message) -> wire.Message:
        for grant in self._grants.find(_text(message, "root"), _text(message, "id")):
            self._grants.hint(grant.token)
        return wire.Message({})

    # Plain processes

    def exec(self, peer: Peer, message: wire.Message) -> wire.Message:
        request = from_keys(_keys(message.head.get("request")))
        mounts = message.head.get("mounts") is True
        if len(message.fds) != 1:
            raise GpuportionError("GP304", why="exec needs one descriptor, a pidfd of the caller")
        caller = processes.identify(message.fds[0])
        if caller is None or caller.pid != peer.pid:
            raise GpuportionError("GP304", why="the descriptor is no pidfd of the caller")
        name = names.printable(_text(message, "argv0"))
        shares = self._place(request, f'process {caller.pid} "{name}"')
        intent = Intent(PROCESS, shares, id=f"pid-{caller.pid}", name=name, uid=peer.uid, creator=caller)
        with self._reserved(intent, os.dup(message.fds[0])) as grant:
            folder = self._grants.make_pages(
                grant,
                libcuda=self._portions.driver_file(grant.token, CUDA),
                libnvml=self._portions.driver_file(grant.token, NVML),
                ledger=self._grants.ledger(grant),
            )
            # Reached by a name that only this caller is told; the ledger itself is 0666.
            os.chmod(os.path.dirname(self._grants.ledger(grant)), 0o711)
            portion = self._portions.make(grant.token, folder, mounts)
            self._grants.confirm(grant.token, caller.pid, message.fds[0], beside=caller.pid)
        binds = [{"source": source, "target": target} for source, target in portion.mounts]
        # Nothing keeps the host's other GPUs from the process; named here, device 0 is one that it may use.
        env = {**portion.env, "CUDA_VISIBLE_DEVICES": ",".join(share.uuid for share in shares)}
        head = {"token": grant.token, "folder": portion.folder, "env": env, "mounts": binds}
        return wire.Message(head)

    # Both

    def _place(self, request: Request, subject: str) -> tuple[Share, ...]:
        """The shares that serve `request`. Only a full node is worth a look at who may have ended
        unnoticed."""
        gpus = self._view.need_gpus()
        injection.programs()
        planned = placement.plan(gpus, self._grants.holdings(), request)
        if isinstance(planned, placement.Refusal):
            self._grants.look_at_ending()
            planned = placement.plan(gpus, self._grants.holdings(), request)
        if isinstance(planned, placement.Refusal):
            raise planned.error(subject)
        models = {gpu.uuid: gpu.model for gpu in gpus}
        return tuple(
            dataclasses.replace(share, context=self._view.context(models[share.uuid]))
            for share in planned.shares
        )

    @contextlib.contextmanager
    def _reserved(self, intent: Intent, pidfd: int | None) -> Iterator[Grant]:
        """A reservation that is undone if what has to be made for it cannot be. Takes the pidfd over."""
        grant = self._grants.reserve(intent, pidfd)
        try:
            yield grant
        except BaseException:
            self._grants.undo(grant)
            raise
        sizes = " + ".join(f"{share.limit >> 20} MiB of GPU {share.index}" for share in grant.shares)
        log.info("granted %s %s %s: %s", grant.token[:8], grant.kind, grant.label, sizes)

    # Questions

    def ps(self, peer: Peer, message: wire.Message) -> wire.Message:
        return wire.Message({"grants": [self._ps_row(grant, peer) for grant in self._grants.live()]})

    def _ps_row(self, grant: Grant, peer: Peer) -> dict[str, Any]:
        view = pages.read_ledger(self._grants.ledger(grant), len(grant.shares))
        uses = view.gpus
        return {
            **({"token": grant.token} if peer.uid == 0 else {}),
            "container": grant.id,
            "name": grant.name,
            "user": grant.uid,
            "kind": grant.kind,
            "state": grant.state.value,
            "gpus": [
                {
                    "index": share.index,
                    "uuid": share.uuid,
                    "limit": share.limit,
                    "used": use.used,
                    "peak": use.peak,
                }
                for share, use in zip(grant.shares, uses, strict=False)
            ],
            "compute": None,
            "enforced_by": "interposer",
            "refusals": sum(use.refusals for use in uses),
            "age_s": round(now() - grant.created, 3),
            "pids": [grant.holder.pid] if grant.holder and grant.state is State.ACTIVE else [],
            **({"damaged": view.damaged} if view.damaged else {}),
        }

    def node(self, peer: Peer, message: wire.Message) -> wire.Message:
        holdings = self._grants.holdings()
        rows = [
            {
                "index": gpu.index,
                "uuid": gpu.uuid,
                "model": gpu.model,
                "role": "fraction",
                "total": gpu.total,
                "reserved": gpu.reserved,
                "unmanaged": gpu.unmanaged,
                "granted": sum(held.share.limit for held in holdings if held.share.uuid == gpu.uuid),
                "free": free(gpu, holdings) if not gpu.trouble else 0,
                "used": gpu.used,
                "health": gpu.trouble or "ok",
            }
            for gpu in self._view.gpus
        ]
        return wire.Message({"gpus": rows, "driver": self._view.driver, "trouble": self._view.trouble})

    def ping(self, peer: Peer, message: wire.Message) -> wire.Message:
        return wire.Message({"version": self._version, "pid": os.getpid(), "ready": True})


Operation = Callable[[Operations, Peer, wire.Message], wire.Message]

OPERATIONS: Final[dict[str, tuple[Operation, bool]]] = {
    # op: (what is done, only for root)
    "create": (Operations.create, True),
    "confirm": (Operations.confirm, True),
    "stopped": (Operations.stopped, True),
    "deleted": (Operations.deleted, True),
    "exec": (Operations.exec, False),
    "ps": (Operations.ps, False),
    "node": (Operations.node, False),
    "ping": (Operations.ping, False),
}


def _operation(head: dict[str, Any]) -> tuple[Operation, bool]:
    if head.get("v") != PROTOCOL:
        raise GpuportionError("GP304", why=f"it is of protocol {head.get('v')!r}; this daemon has {PROTOCOL}")
    found = OPERATIONS.get(str(head.get("op")))
    if found is None:
        raise GpuportionError("GP304", why=f"no operation is called {str(head.get('op'))[:40]!r}")
    return found


def _text(message: wire.Message, key: str) -> str:
    value = message.head.get(key)
    if not isinstance(value, str) or "\0" in value:
        raise GpuportionError("GP304", why=f"{key} is no text")
    return value


def _keys(value: object) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(one, str) for one in value.values()):
        raise GpuportionError("GP304", why="request is no object of texts")
    return value


def _parts(message: wire.Message) -> tuple[bytes, bytes]:
    """config.json, and the image's own /etc/ld.so.preload."""
    size = message.head.get("preload_bytes")
    if not isinstance(size, int) or not 0 <= size <= len(message.body):
        raise GpuportionError("GP304", why="preload_bytes is no part of the body")
    cut = len(message.body) - size
    return message.body[:cut], message.body[cut:]


def _spec(config: bytes) -> dict[str, Any]:
    try:
        spec = json.loads(config)
    except (ValueError, RecursionError) as problem:
        raise GpuportionError("GP304", why=f"the container's config.json is broken: {problem}") from None
    if not isinstance(spec, dict):
        raise GpuportionError("GP304", why="the container's config.json is no object")
    return spec


def _env(spec: dict[str, Any]) -> list[str]:
    process = spec.get("process")
    env = process.get("env") if isinstance(process, dict) else None
    if env is not None and not (isinstance(env, list) and all(isinstance(one, str) for one in env)):
        raise GpuportionError("GP304", why="process.env of the container's config.json is no list of texts")
    return env or []


def _annotations(spec: dict[str, Any]) -> dict[str, str]:
    found = spec.get("annotations") or {}
    if not isinstance(found, dict) or not all(isinstance(one, str) for one in found.values()):
        raise GpuportionError(
            "GP304", why="annotations of the container's config.json are no object of texts"
        )
    return found
