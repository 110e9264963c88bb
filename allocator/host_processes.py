"""A grant for a process of the host that isn't in a container: `gpuportion exec`.

The caller is the grant's first process; its answer is the environment and the files that hold what it starts. With a
MIG instance it is the environment alone. Knows nothing of sockets, nor how a place is found (placing.py).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from gpuportion import wire
from gpuportion.allocator import fields, mig_host, names, processes
from gpuportion.allocator.fault_points import here
from gpuportion.allocator.grant import Intent
from gpuportion.allocator.grants import PROCESS, Grants
from gpuportion.allocator.host_portion import CUDA, NVML, HostPortions, Portion
from gpuportion.allocator.mig.planner import Plan
from gpuportion.allocator.mig_grants import MigGrants
from gpuportion.allocator.peer import Peer
from gpuportion.allocator.pending import Steps
from gpuportion.allocator.placing import Placing
from gpuportion.allocator.processes import Living
from gpuportion.allocator.store import Grant
from gpuportion.errors import GpuportionError
from gpuportion.shim.request import from_keys


class HostProcesses:
    def __init__(self, grants: Grants, portions: HostPortions, mig: MigGrants, placing: Placing) -> None:
        self._grants = grants
        self._portions = portions
        self._mig = mig
        self._placing = placing

    def exec(self, peer: Peer, message: wire.Message) -> Steps[wire.Message]:
        try:
            return (yield from self._granted(peer, message))
        except GpuportionError as refusal:
            if refusal.code != "GP302":
                raise
            raise GpuportionError("GP309", why=refusal.values["why"]) from None

    def _granted(self, peer: Peer, message: wire.Message) -> Steps[wire.Message]:
        request = from_keys(fields.keys(message.head.get("request")))
        mounts = message.head.get("mounts") is True
        if len(message.fds) != 1:
            raise GpuportionError("GP304", why="exec needs one descriptor, a pidfd of the caller")
        caller = processes.identify(message.fds[0])
        if caller is None or caller.pid != peer.pid:
            raise GpuportionError("GP304", why="the descriptor is no pidfd of the caller")
        name = names.printable(fields.text(message, "argv0"))
        user, subject = str(peer.uid), f'process {caller.pid} "{name}"'
        found = self._placing.place(request, subject, user)
        intent = Intent(
            PROCESS,
            self._mig.shares(found),
            request.to_json(),
            id=f"pid-{caller.pid}",
            name=name,
            uid=peer.uid,
            user=user,
            creator=Living(caller, os.dup(message.fds[0])),
        )
        with self._placing.reserved(intent) as grant, _kept(message.fds[0]) as pidfd:
            if isinstance(found, Plan):
                grant = yield from self._placing.made(grant, found, request, subject, once=True)  # noqa: PLW2901
                portion = _on_an_instance(grant)
            else:
                portion = self._fraction(grant, mounts)
            here("portion-made")
            self._grants.confirm(grant.token, caller.pid, pidfd, beside=caller.pid)
        binds = [{"source": source, "target": target} for source, target in portion.mounts]
        head = {"token": grant.token, "folder": portion.folder, "env": portion.env, "mounts": binds}
        mig = grant.mig and {"uuid": grant.mig.uuid, "profile": grant.mig.profile}
        return wire.Message({**head, "mig": mig} if mig else head)

    def _fraction(self, grant: Grant, mounts: bool) -> Portion:
        folder = self._grants.make_pages(
            grant,
            libcuda=self._portions.driver_file(grant.token, CUDA),
            libnvml=self._portions.driver_file(grant.token, NVML),
            ledger=self._grants.ledger(grant),
        )
        portion = self._portions.make(grant.token, folder, mounts)
        # Nothing keeps the host's other GPUs from the process; named here, device 0 is one that it may use.
        visible = ",".join(share.uuid for share in grant.shares)
        return Portion(portion.folder, {**portion.env, mig_host.VISIBLE: visible}, portion.mounts)


def _on_an_instance(grant: Grant) -> Portion:
    assert grant.mig is not None
    return Portion("", mig_host.environment(grant.mig), ())


@contextlib.contextmanager
def _kept(fd: int) -> Iterator[int]:
    """A descriptor of our own: while an instance is made, the message's is closed."""
    ours = os.dup(fd)
    try:
        yield ours
    finally:
        os.close(ours)
