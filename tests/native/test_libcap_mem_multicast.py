"""Multicast objects under a grant: what is bound to one is charged for as long as the driver keeps it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.native import capped
from tests.native.capped import MIB, Simulated
from tests.simgpu.driver import OUT, OUT_OF_MEMORY, Driver
from tests.simgpu.test_multicast import team

LIMIT = 600 * MIB
PIECE = 256 * MIB
REST = LIMIT - 224 * MIB


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulated]:
    yield capped.simulate(tmp_path_factory.mktemp("sim"), "h100-80gb:2")


@pytest.fixture
def cuda(driver: Simulated, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Driver]:
    """A client in a grant of LIMIT on each of two GPUs; the context takes 224 MiB of it."""
    grant = driver.grant(LIMIT, LIMIT, context=224 * MIB, name=tmp_path.name)
    with Driver(grant.preload()) as client:
        client.open()
        yield client


def has_room(cuda: Driver, size: int = PIECE) -> bool:
    """Whether so much can be had now; it is given back."""
    result, block = cuda.call("cuMemAlloc_v2", OUT, size)
    assert result in (0, OUT_OF_MEMORY)
    if not result:
        cuda.free(block)
    return result == 0


def bind(cuda: Driver, way: str, at: int = 0) -> int:
    """An object with PIECE bound to it that nothing else holds."""
    many = cuda.do("cuMulticastCreate", OUT, team(1, 2 * PIECE))
    cuda.do("cuMulticastAddDevice", many, 0)
    memory = cuda.create(PIECE)
    mapped = cuda.map(memory, PIECE)
    what = (memory, 0) if "Mem" in way else (mapped,)
    device = (0,) if way.endswith("_v2") else ()
    cuda.do(way, many, *device, at, *what, PIECE, 0)
    cuda.do("cuMemUnmap", mapped, PIECE)
    cuda.do("cuMemRelease", memory)
    return many


WAYS = [f"cuMulticastBind{what}{version}" for what in ("Mem", "Addr") for version in ("", "_v2")]


@pytest.mark.parametrize("way", WAYS)
def test_what_is_bound_is_charged_until_it_is_unbound(cuda: Driver, way: str) -> None:
    """Handle and mapping are gone; the driver keeps the memory, and so does the grant."""
    many = bind(cuda, way, at=PIECE)
    assert not has_room(cuda)
    cuda.do("cuMulticastUnbind", many, 0, PIECE, PIECE)
    assert has_room(cuda)


@pytest.mark.parametrize("way", WAYS)
def test_what_is_bound_is_charged_until_the_object_is_gone(cuda: Driver, way: str) -> None:
    """The object lives while it has a handle or a mapping."""
    many = bind(cuda, way)
    at = cuda.map(many, 2 * PIECE)
    cuda.do("cuMemRelease", many)
    assert not has_room(cuda)
    cuda.do("cuMemUnmap", at, 2 * PIECE)
    assert has_room(cuda)


def test_an_object_itself_costs_the_grant_nothing(cuda: Driver) -> None:
    """However large: it is a range, not memory."""
    many = cuda.do("cuMulticastCreate", OUT, team(1, 4 * LIMIT // (2 * MIB) * 2 * MIB))
    assert has_room(cuda, REST // (2 * MIB) * 2 * MIB)
    cuda.do("cuMemRelease", many)


def test_a_refused_binding_charges_nothing(cuda: Driver) -> None:
    """The memory is free with its handle."""
    many, memory = cuda.do("cuMulticastCreate", OUT, team(1)), cuda.create(PIECE)
    cuda.do("cuMulticastAddDevice", many, 0)
    assert cuda.call("cuMulticastBindMem", many, 0, memory, 0, PIECE, 0)[0] == 1
    assert not has_room(cuda)
    cuda.do("cuMemRelease", memory)
    assert has_room(cuda)
