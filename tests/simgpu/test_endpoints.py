"""Logical endpoints: they cost nothing themselves, and keep what is bound to them."""

from __future__ import annotations

import struct

from gpuportion.simgpu import state
from tests.simgpu.conftest import Start
from tests.simgpu.driver import INVALID_VALUE, MIB, Driver, driver

NOT_SUPPORTED = 801
UNICAST, MULTICAST = 1, 2
OUT32 = {"out32": 1}
PIECE = 64 * MIB


def endpoint(kind: int, of: int, size: int = PIECE, handles: int = 0) -> dict[str, str]:
    """A CUlogicalEndpointProp; `of`: the device, or how many."""
    return {"hex": struct.pack("<iIQII", kind, of, size, handles, 0).hex()}


def made(cuda: Driver, kind: int, of: int, size: int = PIECE) -> int:
    """An endpoint that is ready; a team has the first devices."""
    one = cuda.do("cuLogicalEndpointIdReserve", OUT32, 1)
    cuda.do("cuLogicalEndpointCreate", one, endpoint(kind, of, size))
    for device in range(of if kind == MULTICAST else 0):
        cuda.do("cuLogicalEndpointAddDevice", one, device)
    assert cuda.do("cuLogicalEndpointQuery", one, 1, OUT32)
    return one


def test_bound_memory_lives_until_it_is_unbound(start: Start) -> None:
    """Its handle is released, its mapping gone; one range unbinds several."""
    sim = start("h100-80gb")
    with driver(sim) as cuda:
        cuda.open()
        used = state.used(sim.state)
        one = made(cuda, UNICAST, 0, 2 * PIECE)
        assert state.used(sim.state) == used
        first, second = cuda.create(PIECE), cuda.create(PIECE)
        cuda.do("cuLogicalEndpointBindMem", one, 0, 0, first, 0, PIECE, 0)
        at = cuda.map(second, PIECE)
        cuda.do("cuLogicalEndpointBindAddr", one, 0, PIECE, at, PIECE, 0)
        cuda.do("cuMemUnmap", at, PIECE)
        for handle in (first, second):
            cuda.do("cuMemRelease", handle)
        assert state.used(sim.state) == used + 2 * PIECE
        assert cuda.call("cuLogicalEndpointUnbind", one, 0, 0, PIECE // 2)[0] == INVALID_VALUE
        cuda.do("cuLogicalEndpointUnbind", one, 0, 0, 2 * PIECE)
        assert state.used(sim.state) == used


def test_bound_memory_lives_until_the_endpoint_is_gone(start: Start) -> None:
    """On each device of a team; its id is there again for another."""
    sim = start("h100-80gb:2")
    with driver(sim) as cuda:
        cuda.open(0)
        cuda.open(1)
        used = [state.used(sim.state, device) for device in (0, 1)]
        team = made(cuda, MULTICAST, 2)
        for device in (0, 1):
            memory = cuda.create(PIECE, device=device)
            cuda.do("cuLogicalEndpointBindMem", team, device, 0, memory, 0, PIECE, 0)
            cuda.do("cuMemRelease", memory)
        assert [state.used(sim.state, device) for device in (0, 1)] == [each + PIECE for each in used]
        cuda.do("cuLogicalEndpointDestroy", team)
        assert [state.used(sim.state, device) for device in (0, 1)] == used
        cuda.do("cuLogicalEndpointCreate", team, endpoint(UNICAST, 1))


def test_what_is_not_sound_is_refused(start: Start) -> None:
    """An id that nobody reserved, an endpoint that is not ready or full, memory of another device."""
    with driver(start("h100-80gb:2")) as cuda:
        cuda.open(1)
        cuda.open(0)
        assert cuda.call("cuLogicalEndpointCreate", 77, endpoint(UNICAST, 0))[0] == INVALID_VALUE
        ids = cuda.do("cuLogicalEndpointIdReserve", OUT32, 2)
        cuda.do("cuLogicalEndpointCreate", ids, endpoint(UNICAST, 0))
        assert cuda.call("cuLogicalEndpointCreate", ids, endpoint(UNICAST, 0))[0] == INVALID_VALUE
        assert cuda.call("cuLogicalEndpointIdRelease", ids, 2)[0] == INVALID_VALUE
        memory, other = cuda.create(PIECE), cuda.create(PIECE, device=1)

        def bind(what: int, device: int = 0, at: int = 0) -> int:
            return cuda.call("cuLogicalEndpointBindMem", ids, device, at, what, 0, PIECE, 0)[0]

        assert bind(memory) == INVALID_VALUE, "nobody asked whether it is ready"
        cuda.do("cuLogicalEndpointQuery", ids, 1, OUT32)
        assert [bind(other), bind(other, 1), bind(memory, at=PIECE)] == 3 * [INVALID_VALUE]
        assert [bind(memory), bind(memory)] == [0, INVALID_VALUE]
        cuda.do("cuLogicalEndpointDestroy", ids)
        cuda.do("cuLogicalEndpointIdRelease", ids, 2)


def test_only_boards_on_a_switch_have_endpoints(start: Start) -> None:
    """As multicast objects; and none is shared with another process."""
    with driver(start("a100-80gb")) as cuda:
        cuda.open()
        one = cuda.do("cuLogicalEndpointIdReserve", OUT32, 1)
        assert cuda.call("cuLogicalEndpointCreate", one, endpoint(UNICAST, 0))[0] == NOT_SUPPORTED
    with driver(start("h100-80gb")) as cuda:
        cuda.open()
        one = cuda.do("cuLogicalEndpointIdReserve", OUT32, 1)
        assert cuda.call("cuLogicalEndpointCreate", one, endpoint(UNICAST, 0, handles=1))[0] == NOT_SUPPORTED
