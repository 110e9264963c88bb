"""libcap_mem on a simulated driver: what a client is granted, and what it sees, whichever way it came."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.native import capped, scripted
from tests.native.capped import MIB, OUT_OF_MEMORY, Client, Grant, Simulated
from tests.native.usual_grant import CONTEXT, LIMIT
from tests.support import native

WAYS = ("dlsym", "lookup1", "lookup2", "perthread")


@pytest.mark.parametrize("way", WAYS)
def test_the_cap_holds_and_life_goes_on(grant: Grant, way: str) -> None:
    """Beyond the grant: out of memory, exactly; what was there stays, what is freed can be taken again."""
    client = Client(grant.preload(), way).begin()
    assert client("linear 500000000") == (0, 0)
    assert client("linear 500000000")[0] == OUT_OF_MEMORY
    assert client("linear 100000000") == (0, 1)
    assert client("free 0") == (0,)
    assert client("linear 500000000") == (0, 2)
    assert "GP201 gpuportion: 478 MiB refused: 702 of this container's 953 MiB are in use" in client.end()


def test_a_direct_link_is_caught_by_the_preload(grant: Grant, driver: Simulated) -> None:
    """A program linked with -lcuda, whose own search path leads to the real driver."""
    env = {**grant.preload(), "LD_LIBRARY_PATH": driver.sim.lib}
    client = Client(env, "linked", "cap_client_linked").begin()
    assert client("linear 900000000")[0] == OUT_OF_MEMORY
    client.end()


def test_a_driver_that_the_image_carries_is_not_reached_by_name(grant: Grant, driver: Simulated) -> None:
    """cuda-compat comes first on the library path; numba opens libcuda.so before libcuda.so.1."""
    compat = grant.folder / "compat"
    compat.mkdir()
    for name in ("libcuda.so", "libcuda.so.1"):
        (compat / name).symlink_to(f"{driver.sim.lib}/libcuda.so.1")
    shutil.copy(capped.library("cap_alias"), grant.folder / "libcuda.so")
    env = {**grant.preload(), "LD_LIBRARY_PATH": str(compat)}
    env["LD_PRELOAD"] += f":{grant.folder}/libcuda.so"
    for name in ("libcuda.so", "libcuda.so.1"):
        client = Client(env, f"open={name}").begin()
        assert client("linear 900000000")[0] == OUT_OF_MEMORY
        client.end()


def test_a_direct_link_is_caught_on_the_library_path(grant: Grant) -> None:
    """No preload: the private folder of `gpuportion exec`, first in LD_LIBRARY_PATH."""
    client = Client(grant.on_path(), "linked", "cap_client_linked").begin()
    assert client("linear 900000000")[0] == OUT_OF_MEMORY
    client.end()


@pytest.mark.parametrize(
    ("command", "per_unit"),
    [
        ("linear {}", 1),
        ("managed {}", 1),
        ("async {}", 1),
        ("map {}", 1),
        ("2d 1048576 {}", 1 << 20),
    ],
)
def test_every_path_of_allocation_has_the_same_cap(client: Client, command: str, per_unit: int) -> None:
    """More than what is left is refused, what is left is granted."""
    assert client(command.format(740 * MIB // per_unit)) == (OUT_OF_MEMORY, 0)
    assert client(command.format(600 * MIB // per_unit)) == (0, 0)
    assert client(command.format(200 * MIB // per_unit)) == (OUT_OF_MEMORY, 0)


def test_narrow_rows_are_not_refused_for_padding_they_do_not_get(client: Client) -> None:
    """Rows are padded to 512 bytes, not to the most that any driver might."""
    rows = 600 * MIB // 512
    assert client(f"2d 100 {rows}") == (0, 0)
    assert client(f"2d 100 {rows}") == (OUT_OF_MEMORY, 0)


def test_a_pool_of_ones_own_has_the_same_cap(client: Client) -> None:
    """cuMemAllocFromPoolAsync, and the charge goes with the pool's last block."""
    assert client("pool") == (0, 0)
    before = client.free_bytes()
    assert client(f"apool 0 {640 * MIB}") == (0, 1)
    assert client(f"apool 0 {200 * MIB}") == (OUT_OF_MEMORY, 0)
    assert client("free 0") == (0,)
    assert client.free_bytes() < before - 600 * MIB
    assert client("free 1") == (0,)
    assert client.free_bytes() == before


def test_sync_memory_gets_what_a_pool_keeps_unused(client: Client) -> None:
    """Before anything is refused, pools give back what they only keep."""
    assert client(f"async {600 * MIB}") == (0, 0)
    assert client("free 0") == (0,)
    assert client(f"linear {600 * MIB}") == (0, 1)


def test_async_memory_can_be_freed_by_the_plain_call(client: Client) -> None:
    """cuMemFree of an async pointer is legal, and counts."""
    assert client(f"async {500 * MIB}") == (0, 0)
    assert client("freesync 0") == (0,)
    assert client("sync") == (0,)
    assert client(f"linear {500 * MIB}") == (0, 1)


def test_plain_memory_can_be_freed_by_the_async_call(client: Client) -> None:
    """Where the driver allows it, it counts."""
    before = client.free_bytes()
    assert client(f"linear {500 * MIB}") == (0, 0)
    if client("freeasync 0") != (0,):
        pytest.skip("the simulated driver does not allow it")
    assert client.free_bytes() == before


def test_physical_memory_is_charged_until_handle_and_mapping_are_gone(client: Client) -> None:
    """cuMemRelease alone frees nothing that is mapped; nor does cuMemUnmap while a handle is there."""
    before = client.free_bytes()
    assert client(f"map {256 * MIB}") == (0, 0)
    assert client("release 0") == (0,)
    assert client.free_bytes() == before - 256 * MIB
    assert client(f"retainhandle 0 {3 * MIB}") == (0,)
    assert client("unmap 0") == (0,)
    assert client.free_bytes() == before - 256 * MIB
    assert client("release 0") == (0,)
    assert client.free_bytes() == before


def test_thousands_of_small_blocks_share_slabs(client: Client, driver: Simulated) -> None:
    """4000 blocks of 1 KiB take a few slabs, not 8 GB; freed, they leave at most one spare slab charged."""
    before = client.free_bytes()
    for _ in range(4000):
        assert client("linear 1024")[0] == 0
    assert before - client.free_bytes() <= 8 * MIB
    assert driver.used() <= LIMIT - client.free_bytes()
    for i in range(4000):
        assert client(f"free {i}") == (0,)
    assert before - client.free_bytes() <= 2 * MIB


def test_the_grant_is_the_gpu(client: Client) -> None:
    """cuMemGetInfo and cuDeviceTotalMem tell of the grant, not of the board."""
    result, free, total, device = client("info")
    assert (result, total, device) == (0, LIMIT, LIMIT)
    assert free == LIMIT - CONTEXT
    assert client(f"linear {100 * MIB}") == (0, 0)
    assert client.free_bytes() == free - 100 * MIB


def test_each_gpu_has_its_own_limit(grant: Grant) -> None:
    """The second device's grant is half the first's."""
    client = Client(grant.preload())
    assert client("init") == (0,)
    assert client("retain 1") == (0,)
    assert client("info")[2] == LIMIT // 2
    assert client("linear 400000000") == (OUT_OF_MEMORY, 0)
    assert client("retain 0") == (0,)
    assert client("linear 400000000") == (0, 0)
    client.end()


def test_a_gpu_that_was_not_granted_gives_nothing(driver: Simulated) -> None:
    """The policy names one of two devices; the other one refuses even a context."""
    grant = driver.grant(LIMIT, context=CONTEXT, name="one_of_two")
    client = Client(grant.preload())
    assert client("init") == (0,)
    assert client("retain 1") == (OUT_OF_MEMORY,)
    assert "was not granted this GPU" in client.end()


def test_processes_share_a_grant_and_the_dead_leave_theirs(grant: Grant) -> None:
    """Two processes, one limit; what a killed one held can be taken at once."""
    first, second = Client(grant.preload()).begin(), Client(grant.preload()).begin()
    assert first("linear 300000000") == (0, 0)
    assert second("linear 300000000") == (OUT_OF_MEMORY, 0)
    assert second.free_bytes() == LIMIT - 2 * CONTEXT - 288 * MIB
    first.kill()
    assert second.free_bytes() == LIMIT - CONTEXT
    assert second("linear 600000000") == (0, 0)
    message = second.end()
    assert f"pid {first.process.pid} cap_client 512" in message
    assert f"pid {second.process.pid} cap_client 224" in message


def test_what_a_killed_process_held_can_be_taken_before_anybody_asks(grant: Grant) -> None:
    """Looking at what is free takes the dead out, too: here nobody has looked."""
    first, second = Client(grant.preload()).begin(), Client(grant.preload()).begin()
    assert first("linear 300000000") == (0, 0)
    assert second("linear 300000000") == (OUT_OF_MEMORY, 0)
    first.kill()
    assert second("linear 600000000") == (0, 0)
    second.end()


def test_a_forked_child_accounts_for_itself(grant: Grant) -> None:
    """A child of a process that has not used the driver holds its own part, and it goes with it."""
    client = Client(grant.preload())
    assert client("fork 700000000") == (0,)
    assert client("fork 800000000") == (OUT_OF_MEMORY,)
    assert client.begin().free_bytes() == LIMIT - CONTEXT
    client.end()


def test_a_limit_follows_its_gpu_where_ordinals_are_changed(grant: Grant) -> None:
    """CUDA_VISIBLE_DEVICES turns two devices round: each keeps the limit of its UUID."""
    client = Client({**grant.preload(), "CUDA_VISIBLE_DEVICES": "1,0"})
    assert client("init") == (0,)
    assert client("retain 0") == (0,)
    assert client("info")[2:] == (LIMIT // 2, LIMIT // 2)
    assert client("linear 400000000") == (OUT_OF_MEMORY, 0)
    assert client("retain 1") == (0,)
    assert client("linear 400000000") == (0, 0)
    client.end()


@pytest.mark.parametrize("build", ["cap_client_asan", "cap_client_tsan"])
def test_sanitized_clients_run_with_the_library(grant: Grant, build: str) -> None:
    """Threads that allocate and free: nothing leaks from the account, no sanitizer complains."""
    # A preloaded ASan must come first; the program has it linked in, and the library is found by path.
    env = {**grant.on_path(), **native.SANITIZER_ENV}
    client = Client(env, "lookup2", build).begin()
    before = client.free_bytes()
    assert client("threads 4 200") == (0,)
    # A page in advance. Once, at a load of 200, it was two: how large slabs are was seen while others took memory.
    assert before - client.free_bytes() <= 4 * MIB
    assert "Sanitizer" not in client.end()


def test_threads_lose_nothing(client: Client) -> None:
    """After many threads' pairs of small and large blocks the account is where it was."""
    before = client.free_bytes()
    assert client("threads 8 3000") == (0,)
    assert before - client.free_bytes() <= 2 * MIB


@pytest.mark.parametrize("seed", range(6))
def test_counted_is_never_less_than_taken(tmp_path: Path, seed: int) -> None:
    """Whatever a driver's granularity and chunks are, as long as its slabs are pages and contexts are known."""
    driver = capped.simulate(tmp_path, seed=seed, context=128 * MIB, slab=2 * MIB)
    grant = driver.grant(4000 * MIB, context=128 * MIB)
    client = Client(grant.preload()).begin()
    for n, command in enumerate(
        [f"linear {n * 333_333}" for n in range(1, 12)]
        + [f"managed {n * 100_000}" for n in range(1, 4)]
        + [f"async {n * 5_000_000}" for n in range(1, 9)]
        + [f"linear {n}" for n in (1, 512, 65536, 524288, 1048576, 1048577)]
    ):
        assert client(command) == (0, n)
        assert driver.used() <= 4000 * MIB - client.free_bytes(), command
    client.end()


def test_a_lookup_gives_the_interface_that_was_asked_for(grant: Grant) -> None:
    """The per-thread variant where it is asked for, and only there: another one would wait for another stream."""
    script = """
at, status = c.c_void_p(), c.c_int()
cu.cuInit(0)
for name in "cuMemAllocAsync", "cuStreamSynchronize":
    for flags, symbol in (0, name), (2, f"{name}_ptsz"):
        say(cu.cuGetProcAddress_v2(name.encode(), c.byref(at), 12000, u64(flags), c.byref(status)))
        say(at.value == c.cast(getattr(cu, symbol), c.c_void_p).value)
"""
    assert scripted.run(grant, script) == [0, True] * 4


def test_no_other_copy_is_loaded_by_a_name(grant: Grant) -> None:
    """dlopen of the SONAME answers with the preloaded library: one copy, one account."""
    script = (
        "import ctypes, os; a = ctypes.CDLL('libcuda.so.1'); ctypes.CDLL('libnvidia-ml.so.1')\n"
        "maps = open('/proc/self/maps').read()\n"
        "print(len({l.split()[-1] for l in maps.splitlines() if 'libcuda.so' in l}))"
    )
    env = grant.preload()
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1"]


def test_a_program_without_cuda_notices_nothing(grant: Grant) -> None:
    """No output, no descriptor, no handler: the library sleeps until it is called."""
    for env in (grant.preload(), {**grant.preload(), "PATH": "", "HOME": ""}):
        done = subprocess.run(["/bin/ls", "-l", "/proc/self/fd"], env=env, capture_output=True, check=True)
        assert done.stderr == b""
        assert b"gpuportion" not in done.stdout and os.fsencode(grant.folder) not in done.stdout
