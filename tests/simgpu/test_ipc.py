"""Memory that processes hand each other: by IPC handles, and by pools that they share."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

import pytest

from gpuportion.simgpu import Sim, state
from gpuportion.simgpu.costs import DEFAULTS
from tests.simgpu.conftest import Start
from tests.simgpu.driver import INVALID_VALUE, MIB, OUT, Driver, driver

CONTEXT = DEFAULTS["context"]
INVALID_CONTEXT = 201
SIZE = 10 * MIB


@pytest.fixture
def owner(sim: Sim) -> Iterator[Driver]:
    with driver(sim) as cuda:
        yield cuda.open()


@pytest.fixture
def other(sim: Sim) -> Iterator[Driver]:
    with driver(sim) as cuda:
        yield cuda.open()


def handle_of(cuda: Driver, pointer: int) -> dict[str, str]:
    return {"value": cuda.fill("cuIpcGetMemHandle", 64, pointer)}


def byte_at(cuda: Driver, pointer: int) -> int:
    back = cuda.do("cuMemHostAlloc", OUT, 16, 0)
    cuda.do("cuMemcpyDtoH_v2", back, pointer, 1)
    return cuda.read(back, 1)[0]


@pytest.mark.parametrize("size", [SIZE, 4096])
@pytest.mark.parametrize("function", ["cuIpcOpenMemHandle", "cuIpcOpenMemHandle_v2"])
def test_both_processes_see_the_same_bytes(
    sim: Sim, owner: Driver, other: Driver, size: int, function: str
) -> None:
    """What was written before and after the handle was made; charged once, large or within a slab."""
    if size < MIB:
        owner.alloc(size)
    pointer = owner.alloc(size)
    used = state.used(sim.state)
    owner.do("cuMemsetD8_v2", pointer, 7, size)
    there = other.do(function, OUT, handle_of(owner, pointer), 1)
    assert byte_at(other, there + size - 1) == 7
    other.do("cuMemsetD8_v2", there, 9, 1)
    assert byte_at(owner, pointer) == 9
    assert state.used(sim.state) == used


def test_the_memory_lives_until_all_have_closed_it(sim: Sim, owner: Driver, other: Driver) -> None:
    """Opened twice it has one address and is closed twice; the owner's free alone frees nothing."""
    pointer = owner.alloc(SIZE)
    handle = handle_of(owner, pointer)
    assert handle == handle_of(owner, pointer)
    there = other.do("cuIpcOpenMemHandle_v2", OUT, handle, 1)
    assert other.do("cuIpcOpenMemHandle_v2", OUT, handle, 1) == there
    owner.free(pointer)
    assert state.used(sim.state) == 2 * CONTEXT + SIZE
    other.do("cuIpcCloseMemHandle", there)
    assert state.used(sim.state) == 2 * CONTEXT + SIZE
    other.do("cuIpcCloseMemHandle", there)
    assert state.used(sim.state) == 2 * CONTEXT
    assert other.call("cuIpcCloseMemHandle", there)[0] == INVALID_VALUE


def test_a_killed_owner_leaves_it_to_the_others(sim: Sim, owner: Driver, other: Driver) -> None:
    """And their context's end closes it."""
    owner_pointer = owner.alloc(SIZE)
    other.do("cuIpcOpenMemHandle_v2", OUT, handle_of(owner, owner_pointer), 1)
    owner.kill()
    assert state.used(sim.state) == CONTEXT + SIZE
    other.do("cuDevicePrimaryCtxReset_v2", 0)
    assert state.used(sim.state) == 0


def test_a_block_that_fills_the_device_can_be_shared(start: Start) -> None:
    """There is no room for it twice, and none is needed."""
    sim = start("t4-16gb")
    with driver(sim) as owner:
        owner.open()
        free, total = owner.info()
        pointer = owner.alloc(free // (2 * MIB) * (2 * MIB))
        used = state.used(sim.state)
        handle_of(owner, pointer)
        assert state.used(sim.state) == used
        owner.free(pointer)
        assert owner.info() == (free, total)


def test_what_cannot_be_opened_is_refused(owner: Driver, other: Driver) -> None:
    """One's own handle, freed memory's, a wrong flag, bytes that are no handle; other memory has no handle."""
    pointer = owner.alloc(SIZE)
    handle = handle_of(owner, pointer)
    assert owner.call("cuIpcOpenMemHandle_v2", OUT, handle, 1)[0] == INVALID_CONTEXT
    assert other.call("cuIpcOpenMemHandle_v2", OUT, handle, 0)[0] == INVALID_VALUE
    assert other.call("cuIpcOpenMemHandle_v2", OUT, {"value": "11" * 64}, 1)[0] == INVALID_VALUE
    owner.free(pointer)
    assert other.call("cuIpcOpenMemHandle_v2", OUT, handle, 1)[0] != 0
    for wrong in (
        owner.do("cuMemHostAlloc", OUT, 64, 0),
        owner.do("cuMemAllocManaged", OUT, 64, 1),
        owner.do("cuMemAllocAsync", OUT, 64, 0),
    ):
        assert (
            owner.ask(call="cuIpcGetMemHandle", args=[{"hex": "00" * 64}, wrong])["result"] == INVALID_VALUE
        )


def test_events_are_handed_on(owner: Driver, other: Driver) -> None:
    """Those made for it: interprocess and without timing."""
    event = owner.do("cuEventCreate", OUT, 6)
    opened = other.do("cuIpcOpenEventHandle", OUT, {"value": owner.fill("cuIpcGetEventHandle", 64, event)})
    other.do("cuEventSynchronize", opened)
    plain = owner.do("cuEventCreate", OUT, 0)
    assert owner.ask(call="cuIpcGetEventHandle", args=[{"hex": "00" * 64}, plain])["result"] == INVALID_VALUE


def pool_to_share() -> dict[str, str]:
    return {"hex": struct.pack("<iiiiQQ56x", 1, 1, 1, 0, 0, 0).hex()}


def test_a_shared_pool_lives_with_its_last_holder(sim: Sim) -> None:
    """Its blocks are the same bytes in both; it is charged once, until the importer lets go of it too."""
    ours, theirs = socket.socketpair()
    with (
        ours,
        theirs,
        Driver(sim.env(), fds=[ours.fileno()]) as owner,
        Driver(sim.env(), fds=[theirs.fileno()]) as other,
    ):
        owner.open()
        other.open()
        chunk = DEFAULTS["pool_chunk"]
        pool = owner.do("cuMemPoolCreate", OUT, pool_to_share())
        pointer = owner.do("cuMemAllocFromPoolAsync", OUT, SIZE, pool, 0)
        owner.do("cuMemsetD8_v2", pointer, 5, SIZE)
        fd = owner.do("cuMemPoolExportToShareableHandle", OUT, pool, 1, 0)
        owner.ask(send=fd, to=ours.fileno())
        received = other.ask(receive=theirs.fileno())["fd"]
        imported = other.do("cuMemPoolImportFromShareableHandle", OUT, received, 1, 0)
        data = {"hex": owner.fill("cuMemPoolExportPointer", 64, pointer)}
        there = other.do("cuMemPoolImportPointer", OUT, imported, data)
        assert byte_at(other, there + SIZE - 1) == 5
        assert other.call("cuMemAllocFromPoolAsync", OUT, SIZE, imported, 0)[0] == INVALID_VALUE
        assert state.used(sim.state) == 2 * CONTEXT + chunk
        owner.kill()
        assert state.used(sim.state) == CONTEXT + chunk
        other.do("cuMemFreeAsync", there, 0)
        other.do("cuMemPoolDestroy", imported)
        assert state.used(sim.state) == CONTEXT


def test_a_process_may_import_what_is_its_own(sim: Sim, owner: Driver) -> None:
    """A pool and exported memory: letting go of one of two holds leaves the other."""
    pool = owner.do("cuMemPoolCreate", OUT, pool_to_share())
    owner.do("cuMemAllocFromPoolAsync", OUT, SIZE, pool, 0)
    fd = owner.do("cuMemPoolExportToShareableHandle", OUT, pool, 1, 0)
    owner.do("cuMemPoolDestroy", owner.do("cuMemPoolImportFromShareableHandle", OUT, fd, 1, 0))
    assert state.used(sim.state) == CONTEXT + DEFAULTS["pool_chunk"]
    handle = owner.create(SIZE, exportable=True)
    fd = owner.do("cuMemExportToShareableHandle", OUT, handle, 1, 0)
    owner.do("cuMemRelease", owner.do("cuMemImportFromShareableHandle", OUT, fd, 1))
    assert state.used(sim.state) == CONTEXT + DEFAULTS["pool_chunk"] + SIZE
    owner.do("cuMemRelease", handle)
    assert state.used(sim.state) == CONTEXT + DEFAULTS["pool_chunk"]
