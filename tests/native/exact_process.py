"""A CUDA client of the exactness machine: makes one thing at a time and knows what each counts as at most.

`most` of a thing is the middle column of the table "How exact" in docs/libcap_mem.md. Knows nothing of what the
simulated driver really takes, nor of how the library counts.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from tests.simgpu.driver import MIB, OUT, SUCCESS, Driver, pool_properties, properties

LARGE: Final = MIB
PITCH: Final = 512
IMAGE: Final = ".version 8.0\n.visible .entry add()"
RGBA32F: Final = (0x20, 4)


ENDS: Final[dict[str, list[Any]]] = {
    "memory": ["cuMemFree_v2"],
    "block": ["cuMemFree_v2"],
    "array": ["cuArrayDestroy"],
    "mipmap": ["cuMipmappedArrayDestroy"],
    "pool": ["cuMemPoolDestroy"],
    "handle": ["cuMemRelease"],
    "mapping": ["cuMemUnmap"],
    "graph": ["cuGraphDestroy"],
    "instance": ["cuGraphExecDestroy"],
    "context": ["cuCtxDestroy_v2"],
    "green": ["cuGreenCtxDestroy"],
    "opened": ["cuIpcCloseMemHandle"],
    "imported pool": ["cuMemPoolDestroy"],
    "imported block": ["cuMemFreeAsync", 0],
    "object": ["cuMemRelease"],
    "binding": ["cuMulticastUnbind"],
}
"""By which call a thing ends."""


def up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple


def array_most(width: int, height: int, levels: int, costs: Mapping[str, int]) -> int:
    """Of an array of four floats, as the driver pads it."""
    planes = (
        up(max(width >> level, 1) * 16, costs["array_row"])
        * (up(height >> level, costs["array_rows"]) if height >> level > 1 else 1)
        for level in range(levels)
    )
    return up(sum(planes), costs["array"])


@dataclass
class Thing:
    """Something that a client made. `most`: bytes that it counts as at most, by GPU."""

    kind: str
    handle: int
    gpu: int
    most: dict[int, int] = field(default_factory=dict)
    context: int = 0
    size: int = 0
    small: int = 0
    """Bytes of an array that shares pages with others."""
    within: int = 0
    """The pool of a block, the number of a limit, the multicast object of a binding."""
    physical: int = 0
    """Number of the memory or of the object that a handle, a mapping, an export, a binding is of. It counts once."""
    exportable: bool = False


class Process:
    """One client of a driver with these costs."""

    def __init__(self, env: dict[str, str], gpus: int, costs: Mapping[str, int]) -> None:
        self.ours, theirs = socket.socketpair()
        self.cuda = Driver(env, fds=[theirs.fileno()])
        self.socket = theirs.fileno()
        theirs.close()
        self.pid = self.cuda.process.pid
        self.page = max(2 * MIB, costs["granularity"])
        self.slab = max(self.page, costs["slab"])
        self.costs, self.context = costs, costs["context"]
        self.things: list[Thing] = []
        self.modules = dict.fromkeys(range(gpus), 0)
        self.kept = dict.fromkeys(range(gpus), 0)
        self.primary: list[int] = []
        self.children: list[int] = []
        self.physicals = 0
        self.on = 0
        self.call("cuInit", 0)

    def call(self, name: str, *args: object) -> tuple[int, ...]:
        """On the chosen thread."""
        said = self.cuda.ask(on=self.on, call=name, args=args)
        self.after: list[str] = said["after"]
        return said["result"], *said["out"]

    def retain(self, gpu: int) -> int:
        result, context = self.call("cuDevicePrimaryCtxRetain", OUT, gpu)
        if result == SUCCESS:
            self.primary.append(context)
            self.things.append(Thing("primary", context, gpu, {gpu: self.context}))
        return result

    def enter(self, thread: int, context: int) -> None:
        self.on = thread
        assert self.call("cuCtxSetCurrent", context)[0] == SUCCESS

    def keep(self, kind: str, answer: tuple[int, ...], gpu: int, **more: object) -> Thing | None:
        """The thing that a call has made, or nothing."""
        if answer[0]:
            return None
        thing = Thing(kind, answer[1], gpu, **more)  # type: ignore[arg-type]
        self.things.append(thing)
        return thing

    def linear(self, gpu: int, context: int, size: int) -> Thing | None:
        """Small ones lie in two slabs at most, large ones in pages of their own."""
        most = up(size, self.page) if size > LARGE else 2 * self.slab
        answer = self.call("cuMemAlloc_v2", OUT, size)
        return self.keep("memory", answer, gpu, most={gpu: most}, context=context)

    def pitched(self, gpu: int, context: int, width: int, height: int) -> None:
        bytes_ = up(width, PITCH) * height
        most = max(up(bytes_, self.page), 2 * self.slab)
        answer = self.call("cuMemAllocPitch_v2", OUT, OUT, width, height, 4)
        self.keep("memory", answer, gpu, most={gpu: most}, context=context)

    def managed(self, gpu: int, context: int, size: int) -> None:
        answer = self.call("cuMemAllocManaged", OUT, size, 1)
        thing = self.keep("memory", answer, gpu, most={gpu: max(up(size, self.page), 2 * self.slab)})
        if thing:
            thing.context = context
            self.call("cuMemsetD8_v2", thing.handle, 0, size)  # so that it lives on the GPU

    def array(self, gpu: int, context: int, width: int, height: int, levels: int) -> None:
        bytes_ = array_most(width, height, levels, self.costs)
        descriptor = {"hex": struct.pack("<QQQiII4x", width, height, 0, *RGBA32F, 0).hex()}
        if levels > 1:
            answer = self.call("cuMipmappedArrayCreate", OUT, descriptor, levels)
        else:
            answer = self.call("cuArray3DCreate_v2", OUT, descriptor)
        most = {gpu: up(bytes_, self.page)} if bytes_ >= LARGE else {}
        kind = "mipmap" if levels > 1 else "array"
        self.keep(kind, answer, gpu, most=most, small=0 if most else bytes_, context=context)

    def stream_ordered(self, gpu: int, size: int, pool: Thing | None) -> Thing | None:
        """What pools have reserved is counted, not blocks."""
        if pool:
            answer = self.call("cuMemAllocFromPoolAsync", OUT, size, pool.handle, 0)
        else:
            answer = self.call("cuMemAllocAsync", OUT, size, 0)
        within = pool.handle if pool else 0
        return self.keep("block", answer, pool.gpu if pool else gpu, within=within)

    def pool(self, gpu: int, largest: int, exportable: bool = False) -> Thing | None:
        asked = pool_properties(device=gpu, max_size=largest, exportable=exportable)
        return self.keep("pool", self.call("cuMemPoolCreate", OUT, asked), gpu, exportable=exportable)

    def physical(self, gpu: int, size: int, exportable: bool) -> Thing | None:
        size = up(size, self.page)
        answer = self.call("cuMemCreate", OUT, size, properties(exportable=exportable, device=gpu), 0)
        more = {"physical": self.number(), "exportable": exportable}
        return self.keep("handle", answer, gpu, most={gpu: size}, size=size, **more)

    def number(self) -> int:
        self.physicals += 1
        return self.physicals

    def map(self, handle: Thing) -> Thing | None:
        """For its GPU to use."""
        at = self.call("cuMemAddressReserve", OUT, handle.size, 0, 0, 0)[1]
        if self.call("cuMemMap", at, handle.size, 0, handle.handle, 0)[0]:
            return None
        self.call("cuMemSetAccess", at, handle.size, {"hex": struct.pack("<iii", 1, handle.gpu, 3).hex()}, 1)
        mapping = Thing("mapping", at, handle.gpu, dict(handle.most), size=handle.size)
        mapping.physical, mapping.exportable = handle.physical, handle.exportable
        self.things.append(mapping)
        return mapping

    def export(self, handle: Thing) -> int:
        """The descriptor. The memory counts until the process ends from now on."""
        result, descriptor = self.call("cuMemExportToShareableHandle", {"out32": 1}, handle.handle, 1, 0)
        if result:
            return -1
        self.things.append(Thing("export", 0, handle.gpu, dict(handle.most), physical=handle.physical))
        return descriptor

    def import_(self, descriptor: int, size: int, gpu: int) -> None:
        """Counts as nothing: whoever exported it pays."""
        answer = self.call("cuMemImportFromShareableHandle", OUT, descriptor, 1)
        self.keep("handle", answer, gpu, size=size)

    def graph(self, gpu: int) -> None:
        self.keep("graph", self.call("cuGraphCreate", OUT, 0), gpu)

    def captured(self, gpu: int, sizes: list[int]) -> None:
        """A graph of what a stream was asked for."""
        stream = self.call("cuStreamCreate", OUT, 1)[1]
        assert self.call("cuStreamBeginCapture_v2", stream, 0)[0] == SUCCESS
        most = 0
        for size in sizes:
            if self.call("cuMemAllocAsync", OUT, size, stream)[0] == SUCCESS:
                most += up(size, self.page)
        answer = self.call("cuStreamEndCapture", stream, OUT)
        assert answer[0] == SUCCESS
        self.keep("graph", answer, gpu, most={gpu: most} if most else {})

    def node(self, graph: Thing, gpu: int, size: int, call: str) -> None:
        params = struct.pack("<iiiiQQ56xQQQQ", 1, 0, 1, gpu, 0, 0, 0, 0, size, 0)
        before: list[int] = [0, 0]
        if call != "cuGraphAddMemAllocNode":
            params = struct.pack("<iiii", 10, 0, 0, 0) + params + bytes(120)
            before = [0, 0] if call == "cuGraphAddNode" else [0, 0, 0]
        if self.call(call, OUT, graph.handle, *before, {"hex": params.hex()})[0] == SUCCESS:
            graph.most[gpu] = graph.most.get(gpu, 0) + up(size, self.page)

    def instantiate(self, graph: Thing, call: str) -> None:
        """The graph's memory is the instance's from now on."""
        arguments: dict[str, list[Any]] = {
            "cuGraphInstantiateWithFlags": [2],
            "cuGraphInstantiate_v2": [0, 0, 0],
            "cuGraphInstantiateWithParams": [{"hex": bytes(32).hex()}],
        }
        more = arguments[call]
        if self.keep("instance", self.call(call, OUT, graph.handle, *more), graph.gpu, most=dict(graph.most)):
            graph.most = {}

    def raise_limit(self, context: Thing, limit: int, value: int, most: int) -> None:
        """In whole pages."""
        if self.call("cuCtxSetLimit", limit, value)[0] == SUCCESS:
            same = [
                t
                for t in self.things
                if t.kind == "limit" and (t.handle, t.within) == (context.handle, limit)
            ]
            for thing in same:
                self.things.remove(thing)
            raised = Thing(
                "limit",
                context.handle,
                context.gpu,
                {context.gpu: up(most, self.page)},
                context=context.handle,
            )
            raised.within = limit
            self.things.append(raised)

    def context_new(self, gpu: int) -> None:
        answer = self.call("cuCtxCreate_v2", OUT, 0, gpu)
        self.keep("context", answer, gpu, most={gpu: self.context})

    def green(self, gpu: int) -> None:
        """Of all multiprocessors: a view of the primary context, which it keeps."""
        assert self.call("cuDeviceGetDevResource", gpu, {"hex": bytes(144).hex()}, 1)[0] == SUCCESS
        described = self.call("cuDevResourceGenerateDesc", OUT, {"hex": self.after[0]}, 1)
        self.keep("green", self.call("cuGreenCtxCreate", OUT, described[1], gpu, 1), gpu)

    def _ending(self, thing: Thing, late: bool) -> tuple[str, list[int]]:
        call, *more = ENDS[thing.kind]
        if late and call == "cuMemFree_v2":
            return "cuMemFreeAsync", [thing.handle, 0]
        if thing.kind == "binding":
            return call, [self.object_of(thing)[0].handle, thing.gpu, thing.handle, thing.size]
        return call, [thing.handle, *([thing.size] if thing.kind == "mapping" else more)]

    def drop(self, thing: Thing, late: bool) -> None:
        """Ends a thing by one of the calls that may."""
        call, arguments = self._ending(thing, late)
        reserved = self.call("cuMemPoolGetAttribute", thing.handle, 5, OUT)[1] if thing.kind == "pool" else 0
        assert self.call(call, *arguments)[0] == SUCCESS, thing
        self.things = [each for each in self.things if each is not thing]
        if thing.kind in ("object", "mapping"):
            self.forget_bindings(thing.physical)
        if thing.kind == "pool":
            thing.size = reserved
        if thing.kind == "pool" and self._blocks_of(thing.handle):
            self.things.append(Thing("destroyed pool", thing.handle, thing.gpu, {thing.gpu: reserved}))
        if thing.kind == "block" and not self._blocks_of(thing.within):
            gone = [t for t in self.things if t.kind == "destroyed pool" and t.handle == thing.within]
            self.things = [t for t in self.things if t not in gone]
        if thing.kind == "context":
            self.forget_in(thing.handle)
        if thing.kind == "instance":
            for gpu, most in thing.most.items():
                self.kept[gpu] += most

    def object_of(self, binding: Thing) -> list[Thing]:
        """The handle of a multicast object; none, where it lives by a mapping alone: nothing can be unbound then."""
        return [t for t in self.things if t.kind == "object" and t.physical == binding.within]

    def forget_bindings(self, physical: int) -> None:
        """They go with the last handle and mapping of their object."""
        if not any(t.kind in ("object", "mapping") and t.physical == physical for t in self.things):
            self.things = [t for t in self.things if t.kind != "binding" or t.within != physical]

    def _blocks_of(self, pool: int) -> list[Thing]:
        return [thing for thing in self.things if thing.kind == "block" and thing.within == pool]

    def forget_in(self, context: int) -> None:
        self.things = [thing for thing in self.things if thing.context != context]

    def most(self, gpu: int) -> int:
        """Bytes that this process counts as at most on a GPU, but for what the daemon told it to charge."""
        things = sum(thing.most.get(gpu, 0) for thing in self.things if not thing.physical)
        once = {thing.physical: thing.most.get(gpu, 0) for thing in self.things if thing.physical}
        small = sum(thing.small for thing in self.things if thing.gpu == gpu)
        left = self.call("cuDeviceGetGraphMemAttribute", gpu, 2, OUT)[1]
        self.kept[gpu] = min(self.kept[gpu], left)
        pools = sum(self.call("cuMemPoolGetAttribute", pool, 5, OUT)[1] for pool in self._pools(gpu))
        return things + sum(once.values()) + up(small, self.page) + self.slab + self.kept[gpu] + pools

    def _pools(self, gpu: int) -> list[int]:
        made = [thing.handle for thing in self.things if thing.kind == "pool" and thing.gpu == gpu]
        return [*made, self.call("cuDeviceGetDefaultMemPool", OUT, gpu)[1]]

    def kill(self) -> None:
        self.cuda.kill()
        self.close()

    def close(self) -> None:
        for pipe in (self.cuda.process.stdin, self.cuda.process.stdout):
            if pipe:
                pipe.close()
        self.ours.close()
