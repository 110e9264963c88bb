"""Multicast objects: they cost nothing themselves, and keep what is bound to them."""

from __future__ import annotations

import socket
import struct
import threading

import pytest

from gpuportion.simgpu import state
from gpuportion.simgpu.costs import DEFAULTS
from tests.simgpu.conftest import Start
from tests.simgpu.driver import INVALID_VALUE, MIB, OUT, Driver, driver

NOT_SUPPORTED = 801
SUPPORTED = 132
FD = 1
PIECE = 64 * MIB


def team(devices: int, size: int = PIECE, handles: int = 0, flags: int = 0) -> dict[str, str]:
    """A CUmulticastObjectProp."""
    return {"hex": struct.pack("<I4xQQQ", devices, size, handles, flags).hex()}


def opened(cuda: Driver) -> Driver:
    cuda.open(0)
    return cuda.open(1)


def test_bound_memory_lives_until_it_is_unbound(start: Start) -> None:
    """Its handle is released, its mapping gone; the object itself costs nothing."""
    sim = start("h100-80gb:2")
    with driver(sim) as cuda:
        opened(cuda)
        used = state.used(sim.state)
        many = cuda.do("cuMulticastCreate", OUT, team(2))
        for device in (0, 1):
            cuda.do("cuMulticastAddDevice", many, device)
        assert state.used(sim.state) == used
        first, second = cuda.create(PIECE), cuda.create(PIECE, device=1)
        cuda.do("cuMulticastBindMem", many, 0, first, 0, PIECE, 0)
        at = cuda.map(second, PIECE)
        cuda.do("cuMulticastBindAddr", many, 0, at, PIECE, 0)
        cuda.do("cuMemUnmap", at, PIECE)
        for handle in (first, second):
            cuda.do("cuMemRelease", handle)
        assert state.used(sim.state) == used + PIECE, "the other device has its own account"
        assert cuda.call("cuMulticastUnbind", many, 0, 0, PIECE // 2)[0] == INVALID_VALUE
        cuda.do("cuMulticastUnbind", many, 0, 0, PIECE)
        assert state.used(sim.state) == used
        assert state.used(sim.state, 1) == DEFAULTS["context"] + PIECE
        cuda.do("cuMemRelease", many)
        assert state.used(sim.state, 1) == DEFAULTS["context"]


def test_an_object_lives_while_it_is_mapped(start: Start) -> None:
    """It is mapped as memory is; what is bound to it goes with the last mapping."""
    sim = start("h100-80gb")
    with driver(sim) as cuda:
        cuda.open()
        used = state.used(sim.state)
        many = cuda.do("cuMulticastCreate", OUT, team(1))
        cuda.do("cuMulticastAddDevice", many, 0)
        memory = cuda.create(PIECE)
        cuda.do("cuMulticastBindMem_v2", many, 0, 0, memory, 0, PIECE, 0)
        cuda.do("cuMemRelease", memory)
        at = cuda.map(many, PIECE)
        cuda.do("cuMemRelease", many)
        assert state.used(sim.state) == used + PIECE
        cuda.do("cuMemUnmap", at, PIECE)
        assert state.used(sim.state) == used


def test_what_does_not_fit_is_refused(start: Start) -> None:
    """Wrong sizes, devices and offsets; memory where some is bound already."""
    sim = start("h100-80gb:2")
    with driver(sim) as cuda:
        opened(cuda)
        for wrong in (team(3), team(0), team(1, 4096), team(1, 0), team(1, flags=1)):
            assert cuda.call("cuMulticastCreate", OUT, wrong)[0] == INVALID_VALUE
        many, memory = cuda.do("cuMulticastCreate", OUT, team(1)), cuda.create(2 * PIECE)
        assert cuda.call("cuMulticastAddDevice", memory, 0)[0] == INVALID_VALUE
        cuda.do("cuMulticastAddDevice", many, 0)
        assert cuda.call("cuMulticastAddDevice", many, 0)[0] == INVALID_VALUE
        assert cuda.call("cuMulticastAddDevice", many, 1)[0] == INVALID_VALUE, "the team is complete"
        elsewhere = cuda.create(PIECE, device=1)
        wrong_places = [
            (elsewhere, 0, 0, PIECE),
            (memory, 0, 0, 2 * PIECE),
            (memory, 2 * PIECE, 0, PIECE),
            (memory, 0, 4096, PIECE // 2),
            (many, 0, 0, PIECE),
        ]
        for handle, offset, at, size in wrong_places:
            assert cuda.call("cuMulticastBindMem", many, at, handle, offset, size, 0)[0] == INVALID_VALUE
        cuda.do("cuMulticastBindMem", many, 0, memory, 0, PIECE // 2, 0)
        assert cuda.call("cuMulticastBindMem", many, 0, memory, PIECE, PIECE // 2, 0)[0] == INVALID_VALUE
        cuda.do("cuMulticastBindMem", many, PIECE // 2, memory, PIECE, PIECE // 2, 0)
        assert cuda.do("cuMulticastGetGranularity", OUT, team(1), 0) == DEFAULTS["granularity"]


@pytest.mark.parametrize("board", ["a100-80gb", "l40s-48gb"])
def test_boards_without_the_switch_have_none(start: Start, board: str) -> None:
    """The attribute says so, and the call."""
    with driver(start(board)) as cuda:
        cuda.open()
        assert cuda.call("cuDeviceGetAttribute", {"out32": 1}, SUPPORTED, 0) == (0, 0)
        assert cuda.call("cuMulticastCreate", OUT, team(1))[0] == NOT_SUPPORTED


def test_processes_make_one_team(start: Start) -> None:
    """Each brings a device that the other does not see; a binding waits until the last of them is there."""
    sim = start("h100-80gb:2")
    ours, theirs = socket.socketpair()
    with (
        ours,
        theirs,
        Driver({**sim.env(), "CUDA_VISIBLE_DEVICES": "0"}, fds=[ours.fileno()]) as first,
        Driver({**sim.env(), "CUDA_VISIBLE_DEVICES": "1"}, fds=[theirs.fileno()]) as second,
    ):
        first.open()
        second.open()
        used = state.used(sim.state)
        many = first.do("cuMulticastCreate", OUT, team(2, handles=FD))
        first.do("cuMulticastAddDevice", many, 0)
        first.ask(send=first.do("cuMemExportToShareableHandle", OUT, many, FD, 0), to=ours.fileno())
        received = second.ask(receive=theirs.fileno())["fd"]
        there = second.do("cuMemImportFromShareableHandle", OUT, received, FD)
        private, memory = first.create(PIECE), first.create(PIECE, exportable=True)
        waiting = threading.Thread(target=first.do, args=("cuMulticastBindMem", many, 0, memory, 0, PIECE, 0))
        waiting.start()
        second.do("cuMulticastAddDevice", there, 0)
        waiting.join()
        assert first.call("cuMulticastBindMem", many, 0, private, 0, PIECE, 0)[0] == INVALID_VALUE
        first.do("cuMemRelease", private)
        first.do("cuMemRelease", memory)
        assert state.used(sim.state) == used + PIECE
        first.do("cuMemRelease", many)
        assert state.used(sim.state) == used
