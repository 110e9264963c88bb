"""CUDA clients without bindings that are scripts: what they say comes back as values."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from tests.native.capped import Grant

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
def node(graph, size):
    global last  # where the memory will be
    alloc = params(size)
    rc = made(cu.cuGraphAddMemAllocNode, graph, None, u64(0), c.byref(alloc))[0]
    last = u64(alloc.dptr)
    return rc
def node2(graph, size):
    node = Node(10, (0, 0, 0), params(size))
    return made(cu.cuGraphAddNode_v2, graph, None, None, u64(0), c.byref(node))[0]
def instance(graph): return made(cu.cuGraphInstantiateWithFlags, graph, u64(0))
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


def run(grant: Grant, script: str) -> Any:
    """What a script over the names above said, in the grant."""
    code = f"{PRELUDE}\n{script}\nprint(json.dumps(answers))"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=grant.preload(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
