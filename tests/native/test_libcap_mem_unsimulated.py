"""libcap_mem on a driver that says what it is told: graphs and arrays, which the simulated one does not have."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.native import capped
from tests.native.capped import MIB, OUT_OF_MEMORY
from tests.support import native

LIMIT = 1000 * MIB

PRELUDE = """
import ctypes as c, json, sys
cu = c.CDLL("libcuda.so.1")
MIB = 1 << 20
u64 = c.c_uint64
answers = []

class Alloc(c.Structure):  # CUDA_MEM_ALLOC_NODE_PARAMS
    _fields_ = [("type", c.c_int), ("handles", c.c_int), ("where", c.c_int), ("id", c.c_int), ("rest", c.c_char * 72),
                ("access", c.c_void_p), ("count", c.c_size_t), ("bytes", c.c_size_t), ("dptr", u64)]

class Node(c.Structure):  # CUgraphNodeParams
    _fields_ = [("type", c.c_int), ("reserved", c.c_int * 3), ("alloc", Alloc), ("rest", c.c_char * 120)]

class Desc(c.Structure):  # CUDA_ARRAY3D_DESCRIPTOR
    _fields_ = [("width", c.c_size_t), ("height", c.c_size_t), ("depth", c.c_size_t), ("format", c.c_int),
                ("channels", c.c_uint), ("flags", c.c_uint)]

class Props(c.Structure):  # CUmemPoolProps, CUmemAllocationProp
    _fields_ = [("type", c.c_int), ("handles", c.c_int), ("where", c.c_int), ("id", c.c_int), ("rest", c.c_char * 72)]

class Where(c.Structure):  # CUmemLocation
    _fields_ = [("type", c.c_int), ("id", c.c_int)]

class Tiles(c.Structure):  # CUarrayMapInfo
    _fields_ = [("resource", u64 * 2), ("part", u64 * 5), ("operation", c.c_int), ("kind", c.c_int),
                ("handle", u64), ("rest", u64 * 3)]

def made(call, *args):
    out = u64()
    return call(c.byref(out), *args), out

def graph(): return made(cu.cuGraphCreate, 0)[1]
def params(size): return Alloc(1, 0, 1, 0, b"", None, 0, size)
def node(graph, size): return made(cu.cuGraphAddMemAllocNode, graph, None, u64(0), c.byref(params(size)))[0]
def node2(graph, size):
    node = Node(10, (0, 0, 0), params(size))
    return made(cu.cuGraphAddNode_v2, graph, None, None, u64(0), c.byref(node))[0]
def instance(graph): return made(cu.cuGraphInstantiateWithFlags, graph, u64(0))
def keeps(size): cu.cuDeviceSetGraphMemAttribute(0, 2, c.byref(u64(size)))
def array(w, h, flags=0): return made(cu.cuArray3DCreate_v2, c.byref(Desc(w, h, 0, 0x20, 4, flags)))
def mipmap(w, h, levels): return made(cu.cuMipmappedArrayCreate, c.byref(Desc(w, h, 0, 0x20, 4, 0)), levels)
def pool(type, where): return made(cu.cuMemPoolCreate, c.byref(Props(type, 0, where)))[1]
def default_pool(type, where): return made(cu.cuMemGetDefaultMemPool, c.byref(Where(where)), type)[1]
def take(pool, size): return made(cu.cuMemAllocFromPoolAsync, u64(size), pool, None)[0]
def used():
    free, total = u64(), u64()
    cu.cuMemGetInfo_v2(c.byref(free), c.byref(total))
    return (total.value - free.value) // MIB
say = answers.append
"""


@pytest.fixture
def run(tmp_path: Path) -> Callable[[str], Any]:
    """Runs a script in the grant; its answers."""
    return _runner(tmp_path, context=0)


def _runner(folder: Path, context: int) -> Callable[[str], Any]:
    built = Path(native.built("cap_partial_driver", "libcap_mem")).with_name("libcap_partial_driver.so")
    grant = capped.make_grant(folder, str(built), "/nowhere", [f"{'11' * 16}:{LIMIT}:{context}"])

    def run(script: str) -> Any:
        code = f"{PRELUDE}\n{script}\nprint(json.dumps(answers))"
        done = subprocess.run(
            [sys.executable, "-c", code], env=grant.preload(), capture_output=True, text=True, check=True
        )
        return json.loads(done.stdout)

    return run


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
keeps(600 * MIB); cu.cuGraphExecDestroy(e); say(used())
keeps(200 * MIB); cu.cuDeviceGraphMemTrim(0); say(used())
"""
    assert run(script) == [0, 0, 600, OUT_OF_MEMORY, 600, 600, 0]


def test_what_graphs_left_is_trimmed_before_a_refusal(run: Callable[[str], Any]) -> None:
    """Memory that the device keeps for graphs that are gone is no reason to refuse."""
    script = """
for i in range(5):
    g = graph(); say(node(g, 600 * MIB)); rc, e = instance(g); say(rc); keeps(600 * MIB)
    cu.cuGraphDestroy(g); cu.cuGraphExecDestroy(e)
say(used())
say(made(cu.cuMemAlloc_v2, u64(900 * MIB))[0])
"""
    assert run(script) == [0] * 10 + [600, 0]


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


DEVICE, HOST, NOWHERE, PINNED, MANAGED = 1, 2, 0, 1, 2


@pytest.mark.parametrize("made", ["pool", "default_pool"])
@pytest.mark.parametrize(
    ("kind", "where", "counts"),
    [
        (PINNED, DEVICE, True),
        (PINNED, HOST, False),
        (MANAGED, DEVICE, True),
        (MANAGED, HOST, True),
        (MANAGED, NOWHERE, True),
    ],
)
def test_a_pool_counts_where_its_memory_can_get_to_the_gpu(
    run: Callable[[str], Any], made: str, kind: int, where: int, counts: bool
) -> None:
    """Managed memory in full, wherever it prefers to live; the host's own never."""
    script = f"""
p = {made}({kind}, {where})
say(take(p, 300 * MIB)); say(used()); say(take(p, 800 * MIB)); say(used())
"""
    assert run(script) == ([0, 300, OUT_OF_MEMORY, 300] if counts else [0, 0, 0, 0])


def test_memory_that_was_mapped_into_an_array_stays_charged(run: Callable[[str], Any]) -> None:
    """A sparse array keeps it when the handle is gone."""
    script = """
def handle(): return made(cu.cuMemCreate, u64(256 * MIB), c.byref(Props(1, 0, 1)), u64(0))[1]
kept, dropped = handle(), handle()
say(cu.cuMemMapArrayAsync(c.byref(Tiles(operation=1, handle=kept)), 1, None)); say(used())
say(cu.cuMemRelease(dropped)); say(cu.cuMemRelease(kept)); say(used())
"""
    assert run(script) == [0, 512, 0, 0, 256]


def test_green_contexts_cost_nothing_of_their_own(tmp_path: Path) -> None:
    """They are views of the primary one; a program that makes many does not use its grant up."""
    script = """
for n in range(100):
    green, context = u64(0x5000 + 0x100 * n), u64()
    cu.cuCtxFromGreenCtx(c.byref(context), green)
    cu.cuCtxSetCurrent(context)
    _, at = made(cu.cuMemAlloc_v2, u64(4 * MIB))
    if n % 25 == 0: say(used())
    cu.cuMemFree_v2(at)
    cu.cuGreenCtxDestroy(green)
cu.cuCtxSetCurrent(None)
say(used())
"""
    assert _runner(tmp_path, context=100 * MIB)(script) == [4, 4, 4, 4, 100]
