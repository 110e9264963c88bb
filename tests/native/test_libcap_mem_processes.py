"""libcap_mem in processes of every kind: what GPUs they see by what name; forked, replaced, with two copies of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gpuportion import simgpu
from gpuportion.simgpu import Behaviour
from tests.native import capped, scripted
from tests.native.capped import MIB, OUT_OF_MEMORY, Grant, Simulated
from tests.simgpu.driver import NO_DEVICE, OUT, SUCCESS, Driver
from tests.simgpu.nvml import Nvml
from tests.simgpu.test_mig_devices import two
from tests.support import native

LIMITS = [1000 * MIB, 2000 * MIB, 3000 * MIB]
BEGIN = """
import os
def begin(device=0):
    assert cu.cuInit(0) == 0
    assert cu.cuCtxSetCurrent(made(cu.cuDevicePrimaryCtxRetain, device)[1]) == 0
def alloc(mib): return made(cu.cuMemAlloc_v2, u64(mib * MIB))[0]
def child(does):
    here, there = os.pipe()
    pid = os.fork()
    if not pid:
        os.write(there, json.dumps(does()).encode()); os._exit(0)
    os.close(there)
    told = json.loads(os.read(here, 4096))
    os.waitpid(pid, 0); os.close(here)
    return told
"""


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulated]:
    """Three GPUs; a context costs nothing, so that limits can be told from what is left."""
    yield capped.simulate(tmp_path_factory.mktemp("sim"), "a100-80gb:3", context=0)


@pytest.fixture
def grant(driver: Simulated, request: pytest.FixtureRequest) -> Grant:
    name = "".join(c if c.isalnum() else "_" for c in request.node.name)
    return driver.grant(*LIMITS, name=name)


def run(grant: Grant, script: str) -> Any:
    return scripted.run(grant, BEGIN + script)


# ------- which GPUs


@pytest.mark.parametrize(
    ("wanted", "seen"),
    [
        (None, [0, 1, 2]),
        ("0,1,2", [0, 1, 2]),
        ("2,1,0", [2, 1, 0]),
        ("1,2", [1, 2]),
        (" 2, 0", [2, 0]),
        ("GPU-{1}", [1]),
        ("GPU-{2},GPU-{0},GPU-{1}", [2, 0, 1]),
        ("GPU-{1:.9}", [1]),
        ("GPU-{2:.13},0", [2, 0]),
        ("1,GPU-{0}", [1, 0]),
        ("1,1,0", [1]),
        ("0,GPU-{0}", [0]),
        ("1,x,0", [1]),
        ("2,9", [2]),
        ("1,-1,0", [1]),
        ("1,MIG-{0}", [1]),
        ("1,,2", [1]),
        ("-1", []),
        ("", []),
        ("GPU-", []),
        ("MIG-{0}", []),
        ("MIG-GPU-{0}/1/0", []),
        ("none", []),
        ("0x1", [0]),
    ],
)
def test_each_gpu_has_its_own_limit_whatever_it_is_called(
    grant: Grant, driver: Simulated, wanted: str | None, seen: list[int]
) -> None:
    """CUDA_VISIBLE_DEVICES by index, UUID, beginning of one, twice, wrong: limits go by the GPU, not its ordinal."""
    uuids = [device.uuid.removeprefix("GPU-") for device in driver.sim.devices]
    env = {} if wanted is None else {"CUDA_VISIBLE_DEVICES": wanted.format(*uuids)}
    with Driver({**grant.preload(), **env}) as cuda:
        assert cuda.call("cuInit", 0)[0] == (SUCCESS if seen else NO_DEVICE)
        count = cuda.call("cuDeviceGetCount", {"out32": 1})[1] if seen else 0
        assert count == len(seen)
        for ordinal, gpu in enumerate(seen):
            assert cuda.fill("cuDeviceGetUuid_v2", 16, ordinal) == uuids[gpu].replace("-", "")
            assert cuda.do("cuDeviceTotalMem_v2", OUT, ordinal) == LIMITS[gpu]
            cuda.do("cuCtxSetCurrent", cuda.do("cuDevicePrimaryCtxRetain", OUT, ordinal))
            assert cuda.call("cuMemAlloc_v2", OUT, LIMITS[gpu] + MIB)[0] == OUT_OF_MEMORY
            assert cuda.call("cuMemAlloc_v2", OUT, LIMITS[gpu])[0] == SUCCESS


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: MIG is changed by root alone")
def test_a_mig_device_has_the_limit_of_its_own_uuid(tmp_path: Path) -> None:
    """Named by CUDA_VISIBLE_DEVICES, and by nobody."""
    native.built("simnvml", "simgpu")
    libraries = Path(native.built("simcuda", "simgpu")).with_name("lib")
    sim = simgpu.start(
        "a100-40gb",
        str(tmp_path / "sim"),
        cdi_dir=None,
        libraries=str(libraries),
        costs={"context": 0},
        behaviour=Behaviour(mig=True, driver="575.57.08"),
    )
    with Nvml(sim) as nvml:
        uuids = two(nvml)
        gpus = [
            f"{u.removeprefix('MIG-').replace('-', '')}:{n * 1000 * MIB}:0" for n, u in enumerate(uuids, 1)
        ]
        made = capped.make_grant(
            tmp_path / "grant",
            f"{sim.lib}/libcuda.so.1",
            f"{sim.lib}/libnvidia-ml.so.1",
            gpus,
            GPUPORTION_SIM_STATE=sim.state,
        )
        for wanted, limits in {uuids[1]: [2], uuids[0]: [1], f"{uuids[1]},{uuids[0]}": [2, 1]}.items():
            with Driver({**made.preload(), "CUDA_VISIBLE_DEVICES": wanted}) as cuda:
                cuda.do("cuInit", 0)
                for ordinal, limit in enumerate(limits):
                    assert cuda.do("cuDeviceTotalMem_v2", OUT, ordinal) == limit * 1000 * MIB


def test_a_child_may_see_other_gpus_than_its_parent(grant: Grant) -> None:
    """Forked before the driver is opened, with another CUDA_VISIBLE_DEVICES; the parent's own are looked up afresh."""
    script = """
def look():
    begin()
    total = u64(); cu.cuDeviceTotalMem_v2(c.byref(total), 0)
    return [total.value // MIB, alloc(total.value // MIB + 1), alloc(total.value // MIB)]
for wanted in "2", "1,0", "0":
    os.environ["CUDA_VISIBLE_DEVICES"] = wanted
    say(child(look))
os.environ["CUDA_VISIBLE_DEVICES"] = "1"
say(look())
"""
    assert run(grant, script) == [[mib, OUT_OF_MEMORY, 0] for mib in (3000, 2000, 1000, 2000)]


# ------- what becomes of a process


def test_a_child_of_a_client_neither_has_nor_gives_back_what_is_its_parents(grant: Grant) -> None:
    """It cannot use the parent's driver, and whatever it tries, the parent's account stands."""
    script = """
begin(); rc, at = made(cu.cuMemAlloc_v2, u64(600 * MIB)); say(rc)
say(child(lambda: [cu.cuMemFree_v2(at) != 0, alloc(1) != 0, cu.cuDevicePrimaryCtxReset_v2(0) != 0]))
say(used()); say(alloc(500)); say(cu.cuMemFree_v2(at)); say(alloc(1000))
"""
    assert run(grant, script) == [0, [True, True, True], 600, OUT_OF_MEMORY, 0, 0]


def test_a_program_that_replaces_itself_begins_anew(grant: Grant) -> None:
    """exec closes the driver: the memory is free, and so is its share."""
    second = "begin(); say(used()); say(alloc(1000))\nprint(json.dumps(answers))"
    code = f"{scripted.PRELUDE}\n{BEGIN}\n{second}"
    script = f"""
begin(); assert alloc(900) == 0
os.execv(sys.executable, [sys.executable, "-c", {code!r}])
"""
    assert run(grant, script) == [0, 0]


def test_two_copies_in_one_process_share_one_account(grant: Grant) -> None:
    """dlmopen loads library and driver once more, under a name space of their own: what both hold is added up."""
    script = f"""
libc = c.CDLL(None)
libc.dlmopen.restype = libc.dlsym.restype = c.c_void_p
second = libc.dlmopen(c.c_long(-1), {str(grant.libcuda)!r}.encode(), 2)
def other(name, *types): return c.CFUNCTYPE(c.c_int, *types)(libc.dlsym(c.c_void_p(second), name))
begin(); say(alloc(600))
context, at = u64(), u64()
say(other(b"cuInit", c.c_uint)(0))
say(other(b"cuDevicePrimaryCtxRetain", c.c_void_p, c.c_int)(c.addressof(context), 0))
say(other(b"cuCtxSetCurrent", c.c_uint64)(context.value))
take = other(b"cuMemAlloc_v2", c.c_void_p, c.c_size_t)
for mib in 500, 400, 10: say(take(c.addressof(at), mib * MIB))
say(used())
"""
    assert run(grant, script) == [0, 0, 0, 0, OUT_OF_MEMORY, 0, OUT_OF_MEMORY, 1000]


def test_a_process_whose_environment_is_gone_is_held_all_the_same(grant: Grant) -> None:
    """The library is loaded already; nothing that it needs is in the environment."""
    script = """
keep = os.environ["GPUPORTION_SIM_STATE"]
os.environ.clear()
os.environ["GPUPORTION_SIM_STATE"] = keep  # the simulated driver's, not the library's
begin(); say(alloc(1001)); say(alloc(1000))
"""
    assert run(grant, script) == [OUT_OF_MEMORY, 0]


def test_a_first_process_without_environment_starts_held_ones(grant: Grant) -> None:
    """As a container's first process that clears it: the preload is the loader's business, and is set again for those
    whom it starts."""
    code = f"{scripted.PRELUDE}\n{BEGIN}\nbegin(); say(alloc(1001)); say(alloc(1000))\nprint(json.dumps(answers))"
    state = grant.env["GPUPORTION_SIM_STATE"]
    path = f"LD_LIBRARY_PATH={grant.folder}"
    command = ["env", "-i", "env", path, f"GPUPORTION_SIM_STATE={state}", sys.executable, "-c", code]
    done = subprocess.run(
        command, env={}, executable="/usr/bin/env", capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == [OUT_OF_MEMORY, 0]


def test_contexts_and_threads_of_one_process_share_its_account(grant: Grant) -> None:
    """Each thread in a context of its own, on two GPUs."""
    with Driver(grant.preload()) as cuda:
        for thread in range(6):
            cuda.ask(on=thread, call="cuInit", args=[0])
            made = cuda.ask(on=thread, call="cuCtxCreate_v2", args=[OUT, 0, thread % 2])
            assert made["result"] == SUCCESS
            assert cuda.ask(on=thread, call="cuMemAlloc_v2", args=[OUT, 300 * MIB])["result"] == SUCCESS
        told = [cuda.ask(on=thread, call="cuMemGetInfo_v2", args=[OUT, OUT])["out"] for thread in range(2)]
        assert told == [[(limit - 900) * MIB, limit * MIB] for limit in (1000, 2000)]
        refused = [
            cuda.ask(on=thread, call="cuMemAlloc_v2", args=[OUT, 200 * MIB])["result"] for thread in range(6)
        ]
        assert refused == [OUT_OF_MEMORY, SUCCESS] * 3
