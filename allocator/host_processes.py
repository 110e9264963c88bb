"""A grant for a process of the host that isn't in a container: `gpuportion exec`.

The caller is the grant's first process; its answer is the environment and the files that hold what it starts.
Knows nothing of sockets, nor how a place is found (placing.py).
"""

from __future__ import annotations

import os

from gpuportion import wire
from gpuportion.allocator import fields, names, processes
from gpuportion.allocator.fault_points import here
from gpuportion.allocator.grants import PROCESS, Grants, Intent
from gpuportion.allocator.host_portion import CUDA, NVML, HostPortions
from gpuportion.allocator.mig_grants import MigGrants, kept_from_mig
from gpuportion.allocator.peer import Peer
from gpuportion.allocator.placing import Placing
from gpuportion.errors import GpuportionError
from gpuportion.shim.request import from_keys


class HostProcesses:
    def __init__(self, grants: Grants, portions: HostPortions, mig: MigGrants, placing: Placing) -> None:
        self._grants = grants
        self._portions = portions
        self._mig = mig
        self._placing = placing

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
        found = self._placing.place(kept_from_mig(request), f'process {caller.pid} "{name}"', user)
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
        with self._placing.reserved(intent) as grant:
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
