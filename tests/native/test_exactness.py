"""What is counted against what the simulated driver gave out, after every step of random programs.

Several processes, threads, forks and GPUs; whatever the driver's page, slab, chunk, padding, context and module
cost. Never less than NVML has of a process, never more than docs/libcap_mem.md says ("How exact").
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule, run_state_machine_as_test

from gpuportion.allocator import pages
from gpuportion.simgpu import state
from tests.native import exact_sharing
from tests.native.exact_cast import GPUS, THREADS, Cast
from tests.native.exact_process import ENDS, IMAGE, Process
from tests.native.exact_sharing import Share
from tests.simgpu.driver import MIB, OUT, SUCCESS

LONG = bool(os.environ.get("GPUPORTION_TEST_LONG"))
EXAMPLES = 600 if LONG else 25
HEAP, FIRST_HEAP = 2, 8 * MIB

sizes = st.one_of(
    st.integers(1, 4096),
    st.integers(1, 3 * MIB),
    st.sampled_from([MIB - 1, MIB, MIB + 1, 2 * MIB, 2 * MIB + 1, 32 * MIB, 33 * MIB]),
    st.integers(1, 600 * MIB),
)
gpus = st.integers(0, GPUS - 1)
picks = st.integers(0, 1 << 20)


node_calls = st.sampled_from(
    ["cuGraphAddMemAllocNode", *(f"cuGraphAddNode{version}" for version in ("", "_v2", "_v3"))]
)


class Exactness(Cast):
    """What the processes of a grant of two GPUs do."""

    # ------- what is made

    @rule(pick=picks, gpu=gpus, size=sizes)
    def linear(self, pick: int, gpu: int, size: int) -> None:
        process, context = self.enter(pick, gpu)
        process.linear(gpu, context, size)

    @rule(pick=picks, gpu=gpus, width=st.integers(1, 5000), height=st.integers(1, 5000))
    def pitched(self, pick: int, gpu: int, width: int, height: int) -> None:
        process, context = self.enter(pick, gpu)
        process.pitched(gpu, context, width, height)

    @rule(pick=picks, gpu=gpus, size=sizes)
    def managed(self, pick: int, gpu: int, size: int) -> None:
        process, context = self.enter(pick, gpu)
        process.managed(gpu, context, size)

    @rule(
        pick=picks,
        gpu=gpus,
        width=st.integers(1, 3000),
        height=st.integers(0, 3000),
        levels=st.integers(1, 4),
    )
    def array(self, pick: int, gpu: int, width: int, height: int, levels: int) -> None:
        process, context = self.enter(pick, gpu)
        process.array(gpu, context, width, height, levels if height else 1)

    @rule(pick=picks, gpu=gpus, size=sizes)
    def stream_ordered(self, pick: int, gpu: int, size: int) -> None:
        process, _ = self.enter(pick, gpu)
        pools = [None, *(thing for thing in process.things if thing.kind == "pool")]
        process.stream_ordered(gpu, size, pools[pick % len(pools)])

    @rule(
        pick=picks,
        gpu=gpus,
        elsewhere=gpus,
        largest=st.sampled_from([0, 0, 100 * MIB, 1000 * MIB]),
        exportable=st.booleans(),
    )
    def pool(self, pick: int, gpu: int, elsewhere: int, largest: int, exportable: bool) -> None:
        process, _ = self.enter(pick, elsewhere)
        process.pool(gpu, largest, exportable)

    @rule(pick=picks, gpu=gpus, elsewhere=gpus, size=sizes, exportable=st.booleans())
    def physical(self, pick: int, gpu: int, elsewhere: int, size: int, exportable: bool) -> None:
        process, _ = self.enter(pick, elsewhere)
        process.physical(gpu, size, exportable)

    @rule(pick=picks)
    def map(self, pick: int) -> None:
        if found := self.thing(pick, "handle", "object"):
            found[0].map(found[1])

    @rule(pick=picks)
    def export_and_import(self, pick: int) -> None:
        if found := self.thing(pick, "handle"):
            process, handle = found
            if (descriptor := process.export(handle)) >= 0:
                process.import_(descriptor, handle.size, handle.gpu)

    @rule(
        pick=picks,
        gpu=gpus,
        nodes=st.lists(st.tuples(gpus, sizes, node_calls), max_size=3),
        ends=st.booleans(),
    )
    def graph(self, pick: int, gpu: int, nodes: list[tuple[int, int, str]], ends: bool) -> None:
        """Of nodes on both GPUs; some never run."""
        process, _ = self.enter(pick, gpu)
        process.graph(gpu)
        graph = process.things[-1]
        for where, size, call in nodes:
            process.node(graph, where, size, call)
        if ends:
            process.drop(graph, late=False)

    @rule(pick=picks, gpu=gpus, amounts=st.lists(sizes, max_size=3))
    def captured(self, pick: int, gpu: int, amounts: list[int]) -> None:
        process, _ = self.enter(pick, gpu)
        process.captured(gpu, amounts)

    @rule(
        pick=picks,
        gpu=gpus,
        size=sizes,
        call=node_calls,
    )
    def node(self, pick: int, gpu: int, size: int, call: str) -> None:
        if found := self.thing(pick, "graph"):
            found[0].node(found[1], gpu, size, call)

    @rule(
        pick=picks,
        call=st.sampled_from(
            ["cuGraphInstantiateWithFlags", "cuGraphInstantiate_v2", "cuGraphInstantiateWithParams"]
        ),
    )
    def instantiate(self, pick: int, call: str) -> None:
        if found := self.thing(pick, "graph"):
            found[0].instantiate(found[1], call)

    @rule(pick=picks)
    def launch(self, pick: int) -> None:
        if found := self.thing(pick, "instance"):
            found[0].call("cuGraphLaunch", found[1].handle, 0)

    @rule(pick=picks, gpu=gpus)
    def context_new(self, pick: int, gpu: int) -> None:
        process, _ = self.enter(pick, gpu)
        process.context_new(gpu)

    @rule(pick=picks, gpu=gpus)
    def green(self, pick: int, gpu: int) -> None:
        self.enter(pick, gpu)[0].green(gpu)

    @rule(pick=picks, beyond=st.integers(0, 300 * MIB))
    def raise_heap(self, pick: int, beyond: int) -> None:
        if found := self.thing(pick, "context", "primary"):
            process, context = found
            process.enter(pick % THREADS, context.handle)
            process.raise_limit(context, HEAP, FIRST_HEAP + beyond, beyond)
            self.launched(process, context.gpu)

    def launched(self, process: Process, gpu: int) -> None:
        """A kernel, by which raised limits take effect. Its module is counted when the daemon has seen it."""
        result, module = process.call("cuModuleLoadData", OUT, IMAGE)
        if result == SUCCESS:
            function = process.call("cuModuleGetFunction", OUT, module, "add")[1]
            process.call("cuLaunchKernel", function, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0)
            assert process.call("cuModuleUnload", module)[0] == SUCCESS

    # ------- what is shared

    @precondition(lambda self: len(self.processes) > 1)
    @rule(
        pick=picks,
        to=picks,
        gpu=gpus,
        size=sizes,
        call=st.sampled_from(["cuIpcOpenMemHandle", "cuIpcOpenMemHandle_v2"]),
    )
    def ipc(self, pick: int, to: int, gpu: int, size: int, call: str) -> None:
        owner, context = self.enter(pick, gpu)
        made = owner.linear(gpu, context, size)
        if made and (other := self.other(to, owner, gpu)):
            self.share(exact_sharing.open_ipc(owner, made, *other, call))

    def share(self, share: Share | None) -> None:
        if share:
            self.shares.append(share)

    @precondition(lambda self: len(self.processes) > 1)
    @rule(pick=picks, to=picks, gpu=gpus, size=sizes)
    def shared_pool(self, pick: int, to: int, gpu: int, size: int) -> None:
        """With a block that both have."""
        owner, _ = self.enter(pick, gpu)
        pool = owner.pool(gpu, 0, exportable=True)
        block = pool and owner.stream_ordered(gpu, size, pool)
        if pool and block and (other := self.other(to, owner, gpu)):
            share = exact_sharing.import_pool(owner, pool, other[0])
            self.share(share)
            if share:
                exact_sharing.import_block(owner, block, other[0], share.opened)

    @rule(pick=picks, to=picks)
    def exported(self, pick: int, to: int) -> None:
        if (found := self.thing(pick, "handle")) and (other := self.other(to, found[0], found[1].gpu)):
            exact_sharing.import_memory(*found, other[0])

    @rule(
        pick=picks,
        gpu=gpus,
        both=st.booleans(),
        exportable=st.booleans(),
        size=sizes,
        v2=st.booleans(),
        mapped=st.booleans(),
    )
    def multicast(
        self, pick: int, gpu: int, both: bool, exportable: bool, size: int, v2: bool, mapped: bool
    ) -> None:
        """An object with a piece of memory, which may go at once."""
        process, _ = self.enter(pick, gpu)
        many = exact_sharing.multicast(process, [0, 1] if both else [gpu], exportable)
        memory = process.physical(gpu, size, exportable)
        mapping = process.map(memory) if memory and mapped else None
        if many and memory:
            exact_sharing.bind(process, many, mapping or memory, pick % 40, v2)
        for thing in (memory, mapping):
            if thing and pick % 2:
                process.drop(thing, late=False)

    @rule(pick=picks, what=picks, page=st.integers(0, 40), v2=st.booleans())
    def bind(self, pick: int, what: int, page: int, v2: bool) -> None:
        """A handle or a mapping of other memory, to the same."""
        if found := self.thing(pick, "object"):
            process, many = found
            memory = [
                t
                for t in process.things
                if t.kind in ("handle", "mapping") and t.exportable == many.exportable
            ]
            if memory:
                exact_sharing.bind(process, many, memory[what % len(memory)], page, v2)

    # ------- what ends

    @rule(pick=picks, late=st.booleans())
    def drop(self, pick: int, late: bool) -> None:
        if found := self.thing(pick, *ENDS):
            process, thing = found
            if thing.kind == "binding" and not process.object_of(thing):
                return
            if thing.kind == "context":
                primary = next(t for t in process.things if t.kind == "primary")
                process.enter(pick % THREADS, primary.handle)
            process.drop(thing, late)

    drop_more = rule(pick=picks, late=st.booleans())(lambda self, pick, late: self.drop(pick, late))

    @rule(pick=picks, gpu=gpus)
    def trim(self, pick: int, gpu: int) -> None:
        process, _ = self.enter(pick, gpu)
        assert process.call("cuDeviceGraphMemTrim", gpu)[0] == SUCCESS
        assert process.call("cuCtxSynchronize")[0] == SUCCESS

    @rule(pick=picks, gpu=gpus)
    def reset(self, pick: int, gpu: int) -> None:
        """All that was in the primary context is gone; it is made anew, if there is still room."""
        process, _ = self.enter(pick, gpu)
        primary = next(t for t in process.things if t.kind == "primary" and t.gpu == gpu)
        assert process.call("cuDevicePrimaryCtxReset_v2", gpu)[0] == SUCCESS
        process.things.remove(primary)
        process.forget_in(primary.handle)
        if process.retain(gpu):
            self.processes.remove(process)
            self.end(process)
            if not self.processes:
                self.start()

    @precondition(lambda self: len(self.processes) > 1)
    @rule(pick=picks)
    def kill(self, pick: int) -> None:
        process = self.one(pick)
        self.processes.remove(process)
        self.orphans += process.children
        process.kill()

    @rule(pick=picks)
    def fork(self, pick: int) -> None:
        """The child holds on to what its parent has, and adds nothing."""
        process = self.one(pick)
        if len(process.children) < 2:
            process.children.append(process.cuda.ask(fork=1)["pid"])

    @rule(gpu=gpus, limit=st.sampled_from([500, 1500, 3000, 6000]))
    def resize(self, gpu: int, limit: int) -> None:
        """As the daemon does it."""
        pages.set_limit(self.policy, pages.read_policy(self.policy).gpus[gpu].uuid, limit * MIB)

    # ------- what must hold

    @invariant()
    def is_exact(self) -> None:
        """Per process and GPU."""
        if not hasattr(self, "ledger"):
            return
        truth, told = state.read(self.driver.sim.state), pages.read_ledger(self.ledger)
        assert not told.damaged
        for gpu in range(GPUS):
            counted = {process.pid: process.used for process in told.gpus[gpu].processes}
            for process in self.processes:
                taken, most = truth[gpu].get(process.pid, 0), process.most(gpu)
                here = counted.get(process.pid, 0)
                left = sum(s.left_over() for s in self.shares if s.owner is process and s.made.gpu == gpu)
                assert taken <= here + left, (
                    f"GPU {gpu}: {taken - here} bytes of {taken} are not counted; {self.costs}"
                )
                assert here <= most, f"GPU {gpu}: {here} counted, {most} at most, {taken} taken; {self.costs}"


def test_what_is_counted_is_what_is_taken() -> None:
    """Within the bounds of docs/libcap_mem.md, from both sides."""
    run_state_machine_as_test(
        Exactness,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=60 if LONG else 40,
            deadline=None,
            derandomize=not LONG,
            database=None,
            report_multiple_bugs=False,
            # Shrinking starts processes by the thousand: GPUPORTION_TEST_SHRINK=1 where that is wanted.
            phases=[Phase.generate, *([Phase.shrink] if os.environ.get("GPUPORTION_TEST_SHRINK") else [])],
            suppress_health_check=list(HealthCheck),
        ),
    )
