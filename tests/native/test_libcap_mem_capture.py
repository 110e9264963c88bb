"""libcap_mem while a stream is captured: nothing that it does of its own ends the capture or is caught in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.native import capped
from tests.simgpu.driver import MIB, OUT, OUT_OF_MEMORY, SUCCESS, Driver, pool_properties

LIMIT = 1000 * MIB
KEEP_ALL = (1 << 62).to_bytes(8, "little").hex()
RELEASE_THRESHOLD = 4
WAITS = {"cuMemPoolTrimTo", "cuDeviceGraphMemTrim", "cuStreamSynchronize", "cuCtxSynchronize"}


class Traced:
    """A client whose calls of the driver, the library's own among them, can be told."""

    def __init__(self, folder: Path) -> None:
        self.trace = folder / "trace"
        grant = capped.simulate(folder, context=0).grant(LIMIT)
        self.cuda = Driver({**grant.preload(), "GPUPORTION_SIM_TRACE": str(self.trace)}).open()

    def since(self, mark: int) -> list[str]:
        return [line.split()[0] for line in self.trace.read_text().splitlines()[mark:]]

    def mark(self) -> int:
        return len(self.trace.read_text().splitlines())

    def keep_unused(self, size: int) -> None:
        """Memory that the device's pool has, and nobody uses."""
        pool = self.cuda.do("cuDeviceGetDefaultMemPool", OUT, 0)
        self.cuda.do("cuMemPoolSetAttribute", pool, RELEASE_THRESHOLD, {"hex": KEEP_ALL})
        self.cuda.do("cuMemFreeAsync", self.cuda.do("cuMemAllocAsync", OUT, size, 0), 0)

    def stream(self) -> int:
        return self.cuda.do("cuStreamCreate", OUT, 1)


@pytest.fixture
def traced(tmp_path: Path) -> Iterator[Traced]:
    made = Traced(tmp_path)
    with made.cuda:
        yield made


def test_nothing_is_trimmed_for_what_is_being_captured(traced: Traced) -> None:
    """It is refused, and the capture goes on; afterwards a pool gives way to the same request."""
    cuda, stream = traced.cuda, traced.stream()
    traced.keep_unused(640 * MIB)
    cuda.do("cuStreamBeginCapture_v2", stream, 0)
    mark = traced.mark()
    assert cuda.call("cuMemAllocAsync", OUT, 600 * MIB, stream)[0] == OUT_OF_MEMORY
    assert cuda.call("cuMemAllocAsync", OUT, 100 * MIB, stream)[0] == SUCCESS
    assert not WAITS & set(traced.since(mark))
    graph = cuda.do("cuStreamEndCapture", stream, OUT)
    cuda.do("cuGraphDestroy", graph)
    assert cuda.call("cuMemAlloc_v2", OUT, 600 * MIB)[0] == SUCCESS
    assert "cuMemPoolTrimTo" in traced.since(mark)


@pytest.mark.parametrize("call", ["cuMemAlloc_v2", "cuMemAllocAsync"])
def test_trimming_beside_a_capture_leaves_it_alone(traced: Traced, call: str) -> None:
    """Another stream's: this thread is out of the capture's way for as long as pools are trimmed."""
    cuda, stream, other = traced.cuda, traced.stream(), traced.stream()
    traced.keep_unused(640 * MIB)
    cuda.do("cuStreamBeginCapture_v2", stream, 0)
    cuda.do("cuMemAllocAsync", OUT, 10 * MIB, stream)
    mark = traced.mark()
    assert cuda.call(call, OUT, 900 * MIB, *([other] if "Async" in call else []))[0] in (
        SUCCESS,
        OUT_OF_MEMORY,
    )
    calls = traced.since(mark)
    assert "cuMemPoolTrimTo" in calls
    depth = 0
    for name in calls:
        depth += name == "cuThreadExchangeStreamCaptureMode"
        assert name not in ("cuMemPoolTrimTo", "cuDeviceGraphMemTrim") or depth % 2, calls
    assert depth and depth % 2 == 0
    cuda.do("cuStreamEndCapture", stream, OUT)


def test_a_captured_allocation_counts_on_its_pools_gpu(tmp_path: Path) -> None:
    """Not on the one that is current."""
    grant = capped.simulate(tmp_path, "a100-80gb:2", context=0).grant(LIMIT, LIMIT)
    with Driver(grant.preload()).open() as cuda:
        second = cuda.do("cuDevicePrimaryCtxRetain", OUT, 1)
        pool, stream = cuda.do("cuMemPoolCreate", OUT, pool_properties(device=1)), 0
        stream = cuda.do("cuStreamCreate", OUT, 1)
        cuda.do("cuStreamBeginCapture_v2", stream, 0)
        cuda.do("cuMemAllocFromPoolAsync", OUT, 300 * MIB, pool, stream)
        assert cuda.info() == (LIMIT, LIMIT)
        cuda.do("cuCtxSetCurrent", second)
        assert cuda.info() == (LIMIT - 300 * MIB, LIMIT)


def test_a_pool_near_its_own_bound_needs_no_room_for_another_chunk(tmp_path: Path) -> None:
    """`maxSize`: what it may not grow by is not asked for."""
    grant = capped.simulate(tmp_path, context=0, pool_chunk=64 * MIB).grant(128 * MIB)
    with Driver(grant.preload()).open() as cuda:
        pool = cuda.do("cuMemPoolCreate", OUT, pool_properties(max_size=128 * MIB))
        for _ in range(4):
            assert cuda.call("cuMemAllocFromPoolAsync", OUT, 30 * MIB, pool, 0)[0] == SUCCESS
        assert cuda.call("cuMemAllocFromPoolAsync", OUT, 30 * MIB, pool, 0)[0] == OUT_OF_MEMORY
        assert cuda.info() == (0, 128 * MIB)
