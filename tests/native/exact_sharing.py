"""What processes of the exactness machine hand each other, and what several GPUs share: IPC handles, pools and memory
by descriptor, multicast objects.

Opened and imported memory counts as nothing where it is opened. Knows nothing of when it is done.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass

from tests.native.exact_process import Process, Thing, up
from tests.simgpu.driver import MIB, OUT, SUCCESS
from tests.simgpu.test_multicast import team

FD = 1
RANGE = 64 * MIB
"""Bytes of a multicast object, at least."""


@dataclass(frozen=True)
class Share:
    """Memory of `owner` that `other` has open as well. The driver keeps it until both are done with it."""

    owner: Process
    made: Thing
    other: Process
    opened: Thing
    bytes: int

    def left_over(self) -> int:
        """Bytes that nobody counts, as docs/limits.md says, because the owner is done with them. Of a pool, what it had
        reserved at its end."""
        left = not _has(self.owner, self.made) and _has(self.other, self.opened)
        return max(self.bytes, self.made.size) if left else 0


def _has(process: Process, thing: Thing) -> bool:
    return any(each is thing for each in process.things)


def hand(descriptor: int, owner: Process, other: Process) -> int:
    """The descriptor in the other process."""
    owner.cuda.ask(send=descriptor, to=owner.socket)
    (here,) = socket.recv_fds(owner.ours, 1, 1)[1]
    socket.send_fds(other.ours, [b"."], [here])
    os.close(here)
    return int(other.cuda.ask(receive=other.socket)["fd"])


def open_ipc(owner: Process, made: Thing, other: Process, context: int, call: str) -> Share | None:
    """Nothing, where that kind of memory has no handle."""
    if owner.call("cuIpcGetMemHandle", {"hex": bytes(64).hex()}, made.handle)[0]:
        return None
    answer = other.call(call, OUT, {"value": owner.after[0]}, 1)
    opened = other.keep("opened", answer, made.gpu, context=context)
    most = max(sum(made.most.values()), owner.slab)
    return Share(owner, made, other, opened, most) if opened else None


def import_pool(owner: Process, made: Thing, other: Process) -> Share | None:
    result, descriptor = owner.call("cuMemPoolExportToShareableHandle", {"out32": 1}, made.handle, FD, 0)
    if result:
        return None
    answer = other.call("cuMemPoolImportFromShareableHandle", OUT, hand(descriptor, owner, other), FD, 0)
    imported = other.keep("imported pool", answer, made.gpu)
    reserved = owner.call("cuMemPoolGetAttribute", made.handle, 5, OUT)[1]
    return Share(owner, made, other, imported, reserved) if imported else None


def import_block(owner: Process, block: Thing, other: Process, pool: Thing) -> None:
    if owner.call("cuMemPoolExportPointer", {"hex": bytes(64).hex()}, block.handle)[0] == SUCCESS:
        answer = other.call("cuMemPoolImportPointer", OUT, pool.handle, {"hex": owner.after[0]})
        other.keep("imported block", answer, block.gpu, within=pool.handle)


def import_memory(owner: Process, made: Thing, other: Process) -> None:
    """It stays charged to its owner."""
    descriptor = owner.export(made)
    if descriptor >= 0:
        other.import_(hand(descriptor, owner, other), made.size, made.gpu)


def multicast(process: Process, gpus: list[int], exportable: bool) -> Thing | None:
    """An object, and the team of these GPUs. It costs nothing."""
    size = up(RANGE, process.page)
    answer = process.call("cuMulticastCreate", OUT, team(len(gpus), size, handles=int(exportable)))
    for gpu in gpus:
        assert process.call("cuMulticastAddDevice", answer[1], gpu)[0] == SUCCESS
    more = {"physical": process.number(), "exportable": exportable}
    return process.keep("object", answer, gpus[0], size=size, **more)


def bind(process: Process, many: Thing, memory: Thing, page: int, v2: bool) -> None:
    """A handle or a mapping, at a page of the object. Refused where the team lacks its GPU, or the place is taken."""
    at = page * process.page % many.size
    size = min(memory.size, many.size - at)
    kind, what = ("Addr", [memory.handle]) if memory.kind == "mapping" else ("Mem", [memory.handle, 0])
    device = [memory.gpu] if v2 else []
    call = f"cuMulticastBind{kind}" + ("_v2" if v2 else "")
    if process.call(call, many.handle, *device, at, *what, size, 0)[0] == SUCCESS:
        binding = Thing("binding", at, memory.gpu, dict(memory.most), size=size)
        binding.within, binding.physical = many.physical, memory.physical
        process.things.append(binding)
