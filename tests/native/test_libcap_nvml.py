"""libcap_nvml on a simulated driver: NVML tells the same story as CUDA, of this grant alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gpuportion.simgpu import Behaviour, mig
from tests.native import capped, scripted
from tests.native.capped import MIB, Client, Grant, Simulated
from tests.simgpu.nvml import Nvml
from tests.support import native

LIMIT = 2000 * MIB
CONTEXT = 224 * MIB
DETAIL_LIST = 1 << 24 | 24
"""nvmlProcessDetailList_v1: version and size of the structure."""

SCRIPT = """
import ctypes, json, sys
import pynvml as nv
nv.nvmlInit()
device = nv.nvmlDeviceGetHandleByIndex(int(sys.argv[1]))
lib = ctypes.CDLL("libnvidia-ml.so.1")

def processes(name, record, room):
    count = ctypes.c_uint(room)
    array = (record * max(room, 1))()
    rc = getattr(lib, name)(device, ctypes.byref(count), array if room else None)
    filled = range(min(count.value, room)) if rc == 0 else ()
    return rc, count.value, [[array[i].pid, array[i].usedGpuMemory] for i in filled]

class V1(ctypes.Structure):
    _fields_ = [("pid", ctypes.c_uint), ("usedGpuMemory", ctypes.c_ulonglong)]

V2 = nv.c_nvmlProcessInfo_v2_t
m1 = nv.nvmlDeviceGetMemoryInfo(device)
m2 = nv.nvmlDeviceGetMemoryInfo(device, version=nv.nvmlMemory_v2)
wrong = nv.c_nvmlMemory_v2_t(); wrong.version = 7
out = {
    "v1": [m1.total, m1.free, m1.used],
    "v2": [m2.total, m2.free, m2.used, m2.reserved],
    "wrong_version": lib.nvmlDeviceGetMemoryInfo_v2(device, ctypes.byref(wrong)),
    "no_device": lib.nvmlDeviceGetMemoryInfo(None, ctypes.byref(m1)),
    "name": nv.nvmlDeviceGetName(device),
    "error": nv.nvmlErrorString(2) if hasattr(nv, "nvmlErrorString") else "",
}
for suffix, record in ("", V1), ("_v2", V2), ("_v3", V2):
    for kind in "Compute", "Graphics", "MPSCompute":
        name = f"nvmlDeviceGet{kind}RunningProcesses{suffix}"
        out[kind + suffix] = [processes(name, record, 0), processes(name, record, 1), processes(name, record, 64)]
print(json.dumps(out))
"""


def _ask(env: dict[str, str], device: int = 0) -> Any:
    command = [sys.executable, "-c", SCRIPT, str(device)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Simulated:
    busy = Behaviour(load=90, accounting=True)
    return capped.simulate(tmp_path_factory.mktemp("sim"), "a100-80gb:2", behaviour=busy)


@pytest.fixture(scope="module")
def grant(driver: Simulated) -> Grant:
    return driver.grant(LIMIT, context=CONTEXT, name="seen")


@pytest.fixture(scope="module")
def clients(driver: Simulated, grant: Grant) -> Iterator[tuple[Client, Client, Client]]:
    """Two processes of the grant, with 300 and 100 MiB, and a neighbour with as much again."""
    neighbour = Client(driver.grant(LIMIT, context=CONTEXT, name="neighbour").preload()).begin()
    first, second = Client(grant.preload()).begin(), Client(grant.preload()).begin()
    assert first(f"linear {300 * MIB}") == (0, 0)
    assert second(f"linear {100 * MIB}") == (0, 0)
    assert neighbour(f"linear {500 * MIB}") == (0, 0)
    yield first, second, neighbour
    for client in (first, second, neighbour):
        client.kill()


def test_memory_is_the_grants(grant: Grant, clients: tuple[Client, Client, Client]) -> None:
    """Total, used and free of the grant, in both versions; nothing is "reserved" in it."""
    used = 400 * MIB + 2 * CONTEXT
    seen = _ask(grant.preload())
    assert seen["v1"] == [LIMIT, LIMIT - used, used]
    assert seen["v2"] == [LIMIT, LIMIT - used, used, 0]
    assert clients[0].free_bytes() == LIMIT - used


def test_only_the_grants_processes_are_listed(grant: Grant, clients: tuple[Client, Client, Client]) -> None:
    """Largest first, in each of the three versions; all of them compute."""
    first, second, _ = (client.process.pid for client in clients)
    listed = [[first, 300 * MIB + CONTEXT], [second, 100 * MIB + CONTEXT]]
    seen = _ask(grant.preload())
    for version in ("", "_v2", "_v3"):
        assert seen["Compute" + version] == [[7, 2, []], [7, 2, []], [0, 2, listed]]
        assert seen["Graphics" + version] == seen["MPSCompute" + version] == [[0, 0, []]] * 3


def test_only_the_grants_processes_are_listed_in_detail(
    driver: Simulated, grant: Grant, clients: tuple[Client, Client, Client]
) -> None:
    """By mode: all three are compute processes, two of them ours."""
    pids = [client.process.pid for client in clients]
    held = [CONTEXT + size * MIB for size in (300, 100, 500)]
    listed = (
        "sorted([p.pid, p.usedGpuMemory] for p in n.nvmlDeviceGetRunningProcessDetailList(device(), {}, {}))"
    )
    with Nvml(driver.sim) as real, Nvml(driver.sim, env=grant.preload()) as nvml:
        for nv, shown in ((real, 3), (nvml, 2)):
            told = [list(one) for one in zip(pids[:shown], held[:shown], strict=True)]
            for mode, expected in enumerate((sorted(told), [], [])):
                assert nv.ask(listed.format(DETAIL_LIST, mode)) == expected, mode
        assert nvml.refusal(listed.format(7, 0)) == real.refusal(listed.format(7, 0))


ROOM = """(lambda count, room: [lib.nvmlDeviceGet{what}(device(), {arguments}), count.value])(
    ctypes.c_uint({room}), (ctypes.c_uint64 * 64)())"""
FORMS = {
    "ProcessUtilization": "room if {room} else None, ctypes.byref(count), ctypes.c_ulonglong(0)",
    "AccountingPids": "ctypes.byref(count), room if {room} else None",
}


def test_only_the_grants_use_is_told(
    driver: Simulated, grant: Grant, clients: tuple[Client, Client, Client]
) -> None:
    """Samples of utilisation in both forms, and the accounts: three share the load, two of them are ours."""
    pids = [client.process.pid for client in clients]
    of_each = "sorted([s.pid, s.smUtil, s.memUtil] for s in n.nvmlDeviceGet{}(device(), 0))"
    with Nvml(driver.sim) as real, Nvml(driver.sim, env=grant.preload()) as nvml:
        for nv, shown in ((real, pids), (nvml, pids[:2])):
            shares = sorted([pid, 30, 15] for pid in shown)
            assert nv.ask(of_each.format("ProcessUtilization")) == shares
            assert nv.ask(of_each.format("ProcessesUtilizationInfo")) == shares
            assert sorted(nv.ask("n.nvmlDeviceGetAccountingPids(device())")) == sorted(shown)
        for pid in pids:
            told = f"n.nvmlDeviceGetAccountingStats(device(), {pid}).gpuUtilization"
            v2 = f"n.nvmlDeviceGetAccountingStats_v2(device(), {pid}).gpuUtilization"
            assert real.ask(told) == real.ask(v2) == 30
            if pid in pids[:2]:
                assert nvml.ask(told) == nvml.ask(v2) == 30
            else:
                assert nvml.refusal(told) == nvml.refusal(v2) == "NotFound"


def test_a_list_that_does_not_fit_is_not_written(
    driver: Simulated, grant: Grant, clients: tuple[Client, Client, Client]
) -> None:
    """Without room, or with too little, it is told how much there must be: of the grant's own."""
    assert len(clients) == 3
    with Nvml(driver.sim, env=grant.preload()) as nvml:
        nvml.ask("globals().update(lib=ctypes.CDLL('libnvidia-ml.so.1'))")
        for what, arguments in FORMS.items():
            for room, expected in ((0, [7, 2]), (1, [7, 2]), (2, [0, 2]), (9, [0, 2])):
                call = ROOM.format(what=what, arguments=arguments.format(room=room), room=room)
                assert nvml.ask(call.replace("\n", "")) == expected, (what, room)


def test_where_nobody_of_the_grant_is_there_is_nothing_to_tell(
    driver: Simulated, grant: Grant, clients: tuple[Client, Client, Client]
) -> None:
    """On a GPU that was not granted, and in a grant that is idle beside a busy neighbour."""
    assert len(clients) == 3
    idle = driver.grant(LIMIT, context=CONTEXT, name="idle")
    for env, index in ((grant.preload(), 1), (idle.preload(), 0)):
        with Nvml(driver.sim, env=env) as nvml:
            for call in ("ProcessUtilization", "ProcessesUtilizationInfo"):
                assert nvml.refusal(f"n.nvmlDeviceGet{call}(device({index}), 0)") == "NotFound"
            assert nvml.ask(f"n.nvmlDeviceGetAccountingPids(device({index}))") == []


UNSIMULATED = """
nv = c.CDLL("libnvidia-ml.so.1")
device = c.c_void_p(1)
assert made(cu.cuMemAlloc_v2, u64(100 * MIB))[0] == 0

def sessions(call, words):
    lists = []
    for room in 0, 1, 64:
        count, out = c.c_uint(room), (c.c_uint * (64 * words))()
        rc = call(device, c.byref(count), out if room else None)
        pids = {out[i * words + 1] for i in range(count.value)} if rc == 0 and room else set()
        lists.append([rc, count.value, pids <= {os.getpid()}])
    return lists

import os
say(sessions(nv.nvmlDeviceGetEncoderSessions, 8))
say(sessions(nv.nvmlDeviceGetFBCSessions, 12))
memory, limits = (u64 * 3)(), (u64 * 4)()
say([nv.nvmlDeviceGetConfComputeProtectedMemoryUsage(device, memory), *(n // MIB for n in memory)])
say([nv.nvmlDeviceGetMemoryLimits_v1(device, limits), *(n // MIB for n in limits)])
say(nv.nvmlDeviceGetMemoryLimits_v1(None, limits))
"""


def test_what_the_simulated_library_does_not_have_is_the_grants_too(tmp_path: Path) -> None:
    """Sessions of encoders and of frame capture (which may become more meanwhile), protected memory, the driver's
    own limits."""
    driver, nvml = (
        str(Path(native.built(target, "libcap_mem")).with_name(f"lib{target}.so"))
        for target in ("cap_partial_driver", "cap_partial_nvml")
    )
    grant = capped.make_grant(tmp_path, driver, nvml, [f"{'11' * 16}:{LIMIT}:0"])
    ours = [[0, 10, True], [7, 10, True], [0, 10, True]]
    assert scripted.run(grant, UNSIMULATED) == [
        ours,
        ours,
        [0, 2000, 1900, 100],
        [0, 0, 2000, 2000, 100],
        2,
    ]


def test_wrong_calls_get_the_librarys_own_errors(driver: Simulated, grant: Grant) -> None:
    """A wrong version, no device: what the real one says."""
    native = _ask({"LD_LIBRARY_PATH": driver.sim.lib, "GPUPORTION_SIM_STATE": driver.sim.state})
    seen = _ask(grant.preload())
    for key in ("wrong_version", "no_device", "name", "error"):
        assert seen[key] == native[key], key
    assert seen["wrong_version"] != 0


def test_a_gpu_that_was_not_granted_is_full_and_empty(grant: Grant) -> None:
    """Nothing is free on it, and nobody is seen there."""
    seen = _ask(grant.preload(), 1)
    assert seen["v1"][1] == 0
    assert seen["Compute_v3"] == [[0, 0, []]] * 3


def test_without_a_policy_there_is_no_driver(driver: Simulated) -> None:
    """Fails closed with a number and a text, never a crash."""
    grant = driver.grant(LIMIT, name="closed")
    (grant.folder / "policy").unlink()
    script = "import pynvml\ntry: pynvml.nvmlInit()\nexcept pynvml.NVMLError as e: print(e.value, e)"
    done = subprocess.run(
        [sys.executable, "-c", script], env=grant.preload(), capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("9 ")
    assert done.stderr.count("GP203") == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: MIG is changed by root alone")
def test_mig_calls_pass_through(tmp_path: Path) -> None:
    """Instances are made, found and removed as without the library; a MIG device that nobody granted has no room."""
    driver = capped.simulate(tmp_path, "a100-40gb")
    mig.switch_on(driver.sim.state)
    with Nvml(driver.sim, env=driver.grant(LIMIT, context=CONTEXT, name="mig").preload()) as nvml:
        assert len(nvml.ask("profiles()")) == 7
        assert nvml.ask("create(14, 2)") == 4
        _, uuid = nvml.ask("compute(4, 1)")
        assert (
            nvml.ask(f"n.nvmlDeviceGetUUID(by('{uuid}'))") == nvml.ask("n.nvmlDeviceGetUUID(mig(0))") == uuid
        )
        assert nvml.ask("n.nvmlDeviceGetName(mig(0))").endswith("MIG 2g.10gb")
        assert nvml.ask("(lambda m: [m.total, m.free])(n.nvmlDeviceGetMemoryInfo(mig(0)))") == [9856 * MIB, 0]
        assert nvml.refusal("destroy(4)") == "InUse"
        nvml.ask("clear()")
        assert nvml.ask("instances()") == []
