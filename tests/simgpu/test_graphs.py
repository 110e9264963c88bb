"""Graphs: the memory they allocate, what running them does, and capture."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest

from gpuportion.simgpu import Sim, state
from gpuportion.simgpu.costs import DEFAULTS
from tests.simgpu.driver import INVALID_VALUE, MIB, OUT, OUT_OF_MEMORY, Driver, driver

CONTEXT = DEFAULTS["context"]
NOT_SUPPORTED, CAPTURE_UNSUPPORTED, INVALIDATED, UNJOINED, UPDATE_FAILURE = 801, 900, 901, 904, 910
USED, USED_HIGH, RESERVED, RESERVED_HIGH = range(4)
AUTO_FREE, UPLOAD = 1, 2
SIZE = 100 * MIB


@pytest.fixture
def cuda(sim: Sim) -> Iterator[Driver]:
    with driver(sim) as cuda:
        yield cuda.open()


def allocation(size: int) -> bytes:
    """CUDA_MEM_ALLOC_NODE_PARAMS"""
    return struct.pack("<iiiiQQ56xQQQQ", 1, 0, 1, 0, 0, 0, 0, 0, size, 0)


def add_alloc(cuda: Driver, graph: int, size: int, call: str = "cuGraphAddMemAllocNode") -> tuple[int, int]:
    """(node, address), by one of the calls for it."""
    params, edges = allocation(size), [0]
    if call != "cuGraphAddMemAllocNode":
        params = struct.pack("<iiii", 10, 0, 0, 0) + params + bytes(120)
        edges = [] if call == "cuGraphAddNode" else [0]
    before = [0, *edges, 0] if call != "cuGraphAddMemAllocNode" else [0, 0]
    said = cuda.ask(call=call, args=[OUT, graph, *before, {"hex": params.hex()}])
    assert said["result"] == 0
    (address,) = struct.unpack_from(
        "<Q", bytes.fromhex(said["after"][0]), len(params) - 8 - 120 * (len(params) > 120)
    )
    return said["out"][0], address


def nodes(*handles: int) -> dict[str, str]:
    return {"hex": struct.pack(f"<{len(handles)}Q", *handles).hex()}


def attribute(cuda: Driver, which: int) -> int:
    return cuda.do("cuDeviceGetGraphMemAttribute", 0, which, OUT)


def graph(cuda: Driver) -> int:
    return cuda.do("cuGraphCreate", OUT, 0)


@pytest.mark.parametrize(
    "call", ["cuGraphAddMemAllocNode", "cuGraphAddNode", "cuGraphAddNode_v2", "cuGraphAddNode_v3"]
)
def test_a_graphs_memory_is_taken_when_it_runs(sim: Sim, cuda: Driver, call: str) -> None:
    """Not by the node, nor by the instance; freed it stays with the device until that is trimmed."""
    made = graph(cuda)
    _, address = add_alloc(cuda, made, SIZE, call)
    instance = cuda.do("cuGraphInstantiateWithFlags", OUT, made, 0)
    assert state.used(sim.state) == CONTEXT
    cuda.do("cuGraphLaunch", instance, 0)
    assert state.used(sim.state) == CONTEXT + SIZE
    cuda.do("cuMemsetD8_v2", address, 1, SIZE)
    cuda.free(address)
    assert cuda.call("cuMemFree_v2", address)[0] == INVALID_VALUE
    cuda.do("cuGraphExecDestroy", instance)
    cuda.do("cuGraphDestroy", made)
    assert [attribute(cuda, which) for which in range(4)] == [0, SIZE, SIZE, SIZE]
    cuda.do("cuDeviceGraphMemTrim", 0)
    assert state.used(sim.state) == CONTEXT
    cuda.do("cuDeviceSetGraphMemAttribute", 0, USED_HIGH, nodes(0))
    assert [attribute(cuda, which) for which in range(4)] == [0, 0, 0, SIZE]


def test_what_is_freed_within_a_graph_is_used_again(sim: Sim, cuda: Driver) -> None:
    """Its need is the most that lives at once; the next graph takes what the last one left."""
    for _ in range(2):
        made = graph(cuda)
        first, address = add_alloc(cuda, made, SIZE)
        freed = cuda.do("cuGraphAddMemFreeNode", OUT, made, nodes(first), 1, address)
        second, other = add_alloc(cuda, made, SIZE)
        cuda.do("cuGraphAddDependencies", made, nodes(freed), nodes(second), 1)
        cuda.do("cuGraphAddMemFreeNode", OUT, made, nodes(second), 1, other)
        instance = cuda.do("cuGraphInstantiateWithFlags", OUT, made, 0)
        for _ in range(3):
            cuda.do("cuGraphLaunch", instance, 0)
        assert state.used(sim.state) == CONTEXT + SIZE
        assert attribute(cuda, USED) == 0


def test_what_a_run_leaves_allocated_must_be_freed_before_the_next(sim: Sim, cuda: Driver) -> None:
    """Unless the instance was told to free it."""
    made = graph(cuda)
    _, address = add_alloc(cuda, made, SIZE)
    instance = cuda.do("cuGraphInstantiateWithFlags", OUT, made, 0)
    cuda.do("cuGraphLaunch", instance, 0)
    assert cuda.call("cuGraphLaunch", instance, 0)[0] == INVALID_VALUE
    cuda.do("cuMemFreeAsync", address, 0)
    cuda.do("cuGraphLaunch", instance, 0)
    cuda.free(address)
    assert cuda.call("cuGraphInstantiateWithFlags", OUT, made, 0)[0] == NOT_SUPPORTED
    cuda.do("cuGraphExecDestroy", instance)
    instance = cuda.do("cuGraphInstantiateWithFlags", OUT, made, AUTO_FREE)
    for _ in range(3):
        cuda.do("cuGraphLaunch", instance, 0)
    assert state.used(sim.state) == CONTEXT + SIZE


def test_a_graph_beyond_the_device_is_out_of_memory_when_it_runs(sim: Sim, cuda: Driver) -> None:
    """By a launch, an upload, or an instance that is uploaded at once; and nothing stays taken."""
    free, _ = cuda.info()
    made = graph(cuda)
    add_alloc(cuda, made, free + 1)
    assert cuda.call("cuGraphInstantiateWithFlags", OUT, made, UPLOAD)[0] == OUT_OF_MEMORY
    instance = cuda.do("cuGraphInstantiate_v2", OUT, made, 0, 0, 0)
    assert cuda.call("cuGraphUpload", instance, 0)[0] == OUT_OF_MEMORY
    assert cuda.call("cuGraphLaunch", instance, 0)[0] == OUT_OF_MEMORY
    assert state.used(sim.state) == CONTEXT
    cuda.do("cuGraphExecDestroy", instance)
    cuda.do("cuGraphDestroy", made)
    assert cuda.call("cuGraphDestroy", made)[0] == INVALID_VALUE


def test_a_graph_that_allocates_has_no_twin(cuda: Driver) -> None:
    """Neither a clone nor a place in another graph; one that does not has both."""
    made, other = graph(cuda), graph(cuda)
    cuda.do("cuGraphAddEmptyNode", OUT, other, 0, 0)
    clone = cuda.do("cuGraphClone", OUT, other)
    cuda.do("cuGraphAddChildGraphNode", OUT, made, 0, 0, clone)
    assert cuda.do("cuGraphGetNodes", clone, 0, OUT) == 1
    add_alloc(cuda, made, SIZE)
    assert cuda.call("cuGraphClone", OUT, made)[0] == NOT_SUPPORTED
    assert cuda.call("cuGraphAddChildGraphNode", OUT, other, 0, 0, made)[0] == NOT_SUPPORTED


def test_a_run_does_what_its_nodes_say(cuda: Driver) -> None:
    """In the order of their dependencies, whatever the order they were made in; also once updated."""
    at, host = cuda.alloc(4096), cuda.do("cuMemHostAlloc", OUT, 4096, 0)

    def fill(made: int, value: int) -> int:
        params = struct.pack("<QQIIQQ", at, 0, value, 1, 4096, 1).hex()
        return cuda.do("cuGraphAddMemsetNode", OUT, made, 0, 0, {"hex": params}, 0)

    def filled_twice(first: int, second: int) -> int:
        made = graph(cuda)
        later = fill(made, second)
        earlier = fill(made, first)
        cuda.do("cuGraphAddDependencies", made, nodes(earlier), nodes(later), 1)
        return made

    def byte() -> int:
        cuda.do("cuMemcpyDtoH_v2", host, at, 1)
        return cuda.read(host, 1)[0]

    instance = cuda.do("cuGraphInstantiateWithFlags", OUT, filled_twice(1, 2), 0)
    assert byte() == 0
    cuda.do("cuGraphLaunch", instance, 0)
    assert byte() == 2
    cuda.do("cuGraphExecUpdate_v2", instance, filled_twice(3, 4), {"hex": "00" * 24})
    cuda.do("cuGraphLaunch", instance, 0)
    assert byte() == 4
    other = graph(cuda)
    fill(other, 5)
    assert cuda.call("cuGraphExecUpdate_v2", instance, other, {"hex": "00" * 24})[0] == UPDATE_FAILURE
    looped = filled_twice(1, 2)
    first, second = cuda.call("cuGraphGetNodes", looped, {"out": 2}, {"hex": struct.pack("<Q", 2).hex()})[1:]
    cuda.do("cuGraphAddDependencies", looped, nodes(first), nodes(second), 1)
    assert cuda.call("cuGraphInstantiateWithFlags", OUT, looped, 0)[0] == INVALID_VALUE


def test_captured_work_becomes_a_graph(sim: Sim, cuda: Driver) -> None:
    """An allocation in a capture is a node: it costs when the graph runs, each time the same memory."""
    stream = cuda.do("cuStreamCreate", OUT, 1)
    host = cuda.do("cuMemHostAlloc", OUT, 4096, 0)
    cuda.do("cuStreamBeginCapture_v2", stream, 0)
    assert cuda.do("cuStreamIsCapturing", stream, OUT) == 1
    address = cuda.do("cuMemAllocAsync", OUT, SIZE, stream)
    cuda.do("cuMemsetD8Async", address, 7, SIZE, stream)
    cuda.do("cuMemcpyDtoHAsync_v2", host, address, 64, stream)
    cuda.do("cuMemFreeAsync", address, stream)
    made = cuda.do("cuStreamEndCapture", stream, OUT)
    assert cuda.do("cuStreamIsCapturing", stream, OUT) == 0
    assert cuda.do("cuGraphGetNodes", made, 0, OUT) == 4
    assert cuda.do("cuGraphGetRootNodes", made, 0, OUT) == 1
    assert (state.used(sim.state), cuda.read(host, 1)) == (CONTEXT, b"\0")
    instance = cuda.do("cuGraphInstantiateWithFlags", OUT, made, 0)
    for _ in range(2):
        cuda.do("cuGraphLaunch", instance, stream)
    assert (state.used(sim.state), cuda.read(host, 64)) == (CONTEXT + SIZE, b"\7" * 64)


def test_other_streams_join_a_capture_by_events(cuda: Driver) -> None:
    """And must come back before its end."""
    main, side = (cuda.do("cuStreamCreate", OUT, 1) for _ in range(2))
    fork, back = (cuda.do("cuEventCreate", OUT, 2) for _ in range(2))
    for joined in (True, False):
        cuda.do("cuStreamBeginCapture_v2", main, 2)
        cuda.do("cuEventRecord", fork, main)
        cuda.do("cuStreamWaitEvent", side, fork, 0)
        assert cuda.do("cuStreamIsCapturing", side, OUT) == 1
        address = cuda.do("cuMemAllocAsync", OUT, SIZE, side)
        cuda.do("cuMemFreeAsync", address, side)
        if joined:
            cuda.do("cuEventRecord", back, side)
            cuda.do("cuStreamWaitEvent", main, back, 0)
        result, made = cuda.call("cuStreamEndCapture", main, OUT)
        assert (result, bool(made)) == ((0, True) if joined else (UNJOINED, False))
        assert cuda.do("cuStreamIsCapturing", side, OUT) == 0


def test_waiting_for_a_captured_stream_ends_its_capture(cuda: Driver) -> None:
    """It is invalid from then on; the default streams cannot be captured at all."""
    stream = cuda.do("cuStreamCreate", OUT, 1)
    cuda.do("cuStreamBeginCapture_v2", stream, 0)
    assert cuda.call("cuStreamSynchronize", stream)[0] == CAPTURE_UNSUPPORTED
    assert cuda.call("cuMemAllocAsync", OUT, SIZE, stream)[0] == INVALIDATED
    assert cuda.call("cuStreamEndCapture", stream, OUT)[0] == INVALIDATED
    cuda.do("cuStreamSynchronize", stream)
    assert cuda.call("cuStreamBeginCapture_v2", 0, 0)[0] == CAPTURE_UNSUPPORTED


def test_a_capture_can_go_on_in_a_graph(cuda: Driver) -> None:
    """Behind nodes that are there."""
    made = graph(cuda)
    first = cuda.do("cuGraphAddEmptyNode", OUT, made, 0, 0)
    stream = cuda.do("cuStreamCreate", OUT, 1)
    cuda.do("cuStreamBeginCaptureToGraph", stream, made, nodes(first), 0, 1, 0)
    cuda.do("cuMemAllocAsync", OUT, SIZE, stream)
    result, status, _, graph_of, _, count = cuda.call("cuStreamGetCaptureInfo_v2", stream, *[OUT] * 5)
    assert (result, status, graph_of, count) == (0, 1, made, 1)
    assert cuda.do("cuStreamEndCapture", stream, OUT) == made
    assert cuda.do("cuGraphGetRootNodes", made, 0, OUT) == 1
