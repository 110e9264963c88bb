"""libcap_mem and memory that has no address of its own: what graphs will allocate, arrays, exported handles."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.native import capped, scripted
from tests.native.capped import MIB, OUT_OF_MEMORY

LIMIT = 1000 * MIB
BEGIN = """
assert cu.cuInit(0) == 0
context = made(cu.cuDevicePrimaryCtxRetain, 0)[1]
assert cu.cuCtxSetCurrent(context) == 0
"""


@pytest.fixture
def run(tmp_path: Path) -> Callable[[str], Any]:
    """Runs a script in a grant on the simulated driver, whose context is not counted; its answers."""
    grant = capped.simulate(tmp_path).grant(LIMIT)
    return lambda script: scripted.run(grant, BEGIN + script)


@pytest.mark.parametrize("node", ["node", "node2"])
def test_a_graphs_nodes_have_the_cap(run: Callable[[str], Any], node: str) -> None:
    """What a graph will allocate is refused when the node is made; a graph that never ran leaves nothing."""
    script = f"""
g = graph()
for mib in 600, 600, 300: say({node}(g, mib * MIB))
say(used()); cu.cuGraphDestroy(g); say(used())
"""
    assert run(script) == [0, OUT_OF_MEMORY, 0, 900, 0]


def test_an_instance_takes_over_its_graphs_charge(run: Callable[[str], Any]) -> None:
    """Once, however long graph and instance live; a second instance needs room of its own."""
    script = """
g = graph(); say(node(g, 600 * MIB))
rc, e = instance(g); say(rc); say(used())
say(instance(g)[0])
cu.cuGraphDestroy(g); say(used())
say(cu.cuGraphLaunch(e, None)); cu.cuGraphExecDestroy(e); say(used())
cu.cuDeviceGraphMemTrim(0); say(used())
say(cu.cuMemFree_v2(last)); cu.cuDeviceGraphMemTrim(0); say(used())
"""
    assert run(script) == [0, 0, 600, OUT_OF_MEMORY, 600, 0, 600, 600, 0, 0]


def test_a_graphs_nodes_count_on_their_own_gpus(tmp_path: Path) -> None:
    """A graph on two GPUs, and its instance: what each gives back is what was taken there."""
    script = """
both = [context, made(cu.cuDevicePrimaryCtxRetain, 1)[1]]
def usage(): return [(cu.cuCtxSetCurrent(c_), used())[1] for c_ in both]
def node_on(graph, gpu, mib):
    alloc = params(mib * MIB); alloc.id = gpu
    return made(cu.cuGraphAddMemAllocNode, graph, None, u64(0), c.byref(alloc))[0]
g = graph(); say([node_on(g, 0, 100), node_on(g, 1, 200), node_on(g, 1, 1900)]); say(usage())
cu.cuGraphDestroy(g); say(usage())
g = graph(); say([node_on(g, 1, 300), node_on(g, 0, 400)]); rc, e = instance(g); say(rc)
cu.cuGraphDestroy(g); say(usage()); cu.cuGraphExecDestroy(e); say(usage())
"""
    grant = capped.simulate(tmp_path, "a100-80gb:2", context=0).grant(LIMIT, 2 * LIMIT)
    told = scripted.run(grant, BEGIN + script)
    assert told == [[0, 0, OUT_OF_MEMORY], [100, 200], [0, 0], [0, 0], 0, [400, 300], [0, 0]]


def test_what_graphs_left_is_trimmed_before_a_refusal(run: Callable[[str], Any]) -> None:
    """Memory that the device keeps for graphs that are gone is no reason to refuse."""
    script = """
for i in range(5):
    g = graph(); say(node(g, 600 * MIB)); rc, e = instance(g); say(rc); say(cu.cuGraphLaunch(e, None))
    say(cu.cuMemFree_v2(last)); cu.cuGraphDestroy(g); cu.cuGraphExecDestroy(e)
say(used())
say(made(cu.cuMemAlloc_v2, u64(900 * MIB))[0])
"""
    assert run(script) == [0] * 20 + [600, 0]


def test_captured_allocations_have_the_cap(run: Callable[[str], Any]) -> None:
    """A node each: what does not fit is refused, and the capture goes on."""
    script = """
stream = made(cu.cuStreamCreate, 1)[1]
say(cu.cuStreamBeginCapture_v2(stream, 0))
for mib in 600, 600, 300: say(made(cu.cuMemAllocAsync, u64(mib * MIB), stream)[0])
g = u64(); say(cu.cuStreamEndCapture(stream, c.byref(g))); say(used())
cu.cuGraphDestroy(g); say(used())
"""
    assert run(script) == [0, 0, OUT_OF_MEMORY, 0, 0, 900, 0]


def test_arrays_have_the_cap(run: Callable[[str], Any]) -> None:
    """Large ones by themselves, small ones by their sum; destroyed, they are given back."""
    script = """
rc, a = array(8192, 4096); say(rc); say(used())
say(array(8192, 4096)[0])
small = [array(64, 64) for i in range(1000)]; say(used())
for rc, s in small: cu.cuArrayDestroy(s)
say(used())
cu.cuArrayDestroy(a); say(used())
rc, m = mipmap(4096, 4096, 13); say(rc); say(used()); cu.cuMipmappedArrayDestroy(m); say(used())
say(array(1 << 40, 1 << 40)[0]); say(array(1 << 40, 1 << 40, flags=0x40)[0]); say(used())
"""
    first, large, second, with_small, without, none, rc, mipmap, gone, absurd, sparse, end = run(script)
    assert (first, large, second, without, none, rc, gone) == (0, 512, OUT_OF_MEMORY, 512, 0, 0, 0)
    assert 62 <= with_small - 512 <= 126
    assert 341 <= mipmap <= 360
    assert (absurd, sparse, end) == (OUT_OF_MEMORY, 0, 0)


@pytest.mark.parametrize("format", [0x01, 0x03, 0x10, 0x20, 0x50, 0x91, 0x9D, 0xB0, 0xA4, 0xB1, 0xC5])
def test_an_array_is_never_counted_as_less_than_it_takes(tmp_path: Path, format: int) -> None:
    """Of any format and shape: the grant's count is at least what the driver gave out."""
    driver = capped.simulate(tmp_path, context=0)
    script = f"""
import os
for w, h, d in (1, 0, 0), (1000, 0, 0), (1000, 700, 0), (333, 65, 9), (4096, 4096, 0):
    desc = Desc(w, h, d, {format}, 4, 0)
    say(made(cu.cuArray3DCreate_v2, c.byref(desc))[0])
free, total = u64(), u64()
cu.cuMemGetInfo_v2(c.byref(free), c.byref(total))
say(total.value - free.value)
c.CDLL({str(driver.sim.lib) + "/libcuda.so.1"!r}).cuMemGetInfo_v2(c.byref(free), c.byref(total))
say(total.value - free.value)
"""
    *results, counted, taken = scripted.run(driver.grant(LIMIT), BEGIN + script)
    assert results == [0] * 5
    assert counted >= taken > 0


def test_memory_that_was_exported_stays_charged(run: Callable[[str], Any]) -> None:
    """When an exported descriptor is closed cannot be seen: the charge goes with the process, not before."""
    script = """
handles = [made(cu.cuMemCreate, u64(200 * MIB), c.byref(Props(1, 1, 1)), u64(0))[1] for _ in range(2)]
fd = c.c_int()
say(cu.cuMemExportToShareableHandle(c.byref(fd), handles[0], 1, u64(0))); say(used())
say([cu.cuMemRelease(handle) for handle in handles]); say(used())
"""
    assert run(script) == [0, 400, [0, 0], 200]
