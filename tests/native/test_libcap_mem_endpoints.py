"""Logical endpoints under a grant: what is bound to one is charged for as long as the driver keeps it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.native import capped
from tests.native.capped import MIB, Simulated
from tests.native.test_libcap_mem_multicast import LIMIT, PIECE, has_room
from tests.simgpu.driver import INVALID_VALUE, OUT, OUT_OF_MEMORY, Driver, properties
from tests.simgpu.test_endpoints import UNICAST, made

HALF = PIECE // 2


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulated]:
    yield capped.simulate(tmp_path_factory.mktemp("sim"), "h100-80gb:2")


@pytest.fixture
def cuda(driver: Simulated, tmp_path: Path) -> Iterator[Driver]:
    """A client in a grant of LIMIT on each of two GPUs; the context takes 224 MiB of it."""
    grant = driver.grant(LIMIT, LIMIT, context=224 * MIB, name=tmp_path.name)
    with Driver(grant.preload()) as client:
        client.open()
        yield client


def bind(cuda: Driver, way: str, one: int, at: int, size: int, device: int = 0) -> int:
    """`size` bytes that nothing else holds are bound at an offset; the result."""
    memory = cuda.create(size, device=device)
    mapped = cuda.map(memory, size)
    what = (memory, 0) if way == "Mem" else (mapped,)
    result = cuda.call(f"cuLogicalEndpointBind{way}", one, device, at, *what, size, 0)[0]
    cuda.do("cuMemUnmap", mapped, size)
    cuda.do("cuMemRelease", memory)
    return result


@pytest.mark.parametrize("way", ["Mem", "Addr"])
def test_what_is_bound_is_charged_until_it_is_unbound(cuda: Driver, way: str) -> None:
    """Handle and mapping are gone; the driver keeps the memory, and so does the grant."""
    one = made(cuda, UNICAST, 0, 2 * PIECE)
    assert bind(cuda, way, one, PIECE, PIECE) == 0
    assert not has_room(cuda)
    cuda.do("cuLogicalEndpointUnbind", one, 0, PIECE, PIECE)
    assert has_room(cuda)
    cuda.do("cuLogicalEndpointDestroy", one)


@pytest.mark.parametrize("way", ["Mem", "Addr"])
def test_what_is_bound_is_charged_until_the_endpoint_is_gone(cuda: Driver, way: str) -> None:
    """And not on the account of the next one with its id."""
    one = made(cuda, UNICAST, 0, PIECE)
    assert bind(cuda, way, one, 0, PIECE) == 0
    assert not has_room(cuda)
    cuda.do("cuLogicalEndpointDestroy", one)
    assert has_room(cuda)


def test_one_range_unbinds_several(cuda: Driver) -> None:
    """And leaves what lies outside of it, or on another GPU, or at another endpoint."""
    one, other, far = (
        made(cuda, UNICAST, 0, PIECE),
        made(cuda, UNICAST, 0, PIECE),
        made(cuda, UNICAST, 1, PIECE),
    )
    quarter = HALF // 2
    for at in range(0, PIECE - quarter, quarter):
        assert bind(cuda, "Mem", one, at, quarter) == 0
    assert bind(cuda, "Mem", other, 0, quarter) == 0
    assert bind(cuda, "Mem", far, 0, PIECE, device=1) == 0
    assert not has_room(cuda, HALF)
    cuda.do("cuLogicalEndpointUnbind", one, 0, 0, HALF)
    assert has_room(cuda, HALF) and not has_room(cuda)
    cuda.do("cuLogicalEndpointDestroy", one)
    cuda.do("cuLogicalEndpointDestroy", other)
    assert has_room(cuda)
    assert cuda.call("cuMemCreate", OUT, PIECE + HALF, properties(device=1), 0)[0] == OUT_OF_MEMORY
    cuda.do("cuLogicalEndpointDestroy", far)
    cuda.do("cuMemRelease", cuda.create(PIECE + HALF, device=1))


def test_a_refused_binding_charges_nothing(cuda: Driver) -> None:
    """The memory is free with its handle."""
    one = made(cuda, UNICAST, 0, HALF)
    assert bind(cuda, "Mem", one, 0, PIECE) == INVALID_VALUE
    assert has_room(cuda)
