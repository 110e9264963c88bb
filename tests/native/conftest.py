"""The launcher in both of its builds, the parsers of the C programs, processes that account, and a CUDA client in a
grant."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpuportion.allocator import pages
from gpuportion.allocator.pages import GpuLimit, Pages
from tests.native import capped
from tests.native.capped import Client, Grant, Simulated
from tests.native.ledger_build import compile_program
from tests.native.ledger_process import LIMIT, UUIDS, Driver, Start
from tests.native.usual_grant import CONTEXT
from tests.native.usual_grant import LIMIT as USUAL_LIMIT
from tests.support.launcher import Launcher
from tests.support.parsers import Parsers


@pytest.fixture(params=["gpuportion-runtime", "gpuportion-runtime-sanitized"])
def launcher(request: pytest.FixtureRequest, tmp_path: Path) -> Launcher:
    return Launcher(tmp_path, str(request.param))


@pytest.fixture(scope="session", params=["gpuportion-parsers", "gpuportion-parsers-sanitized"])
def parsers(request: pytest.FixtureRequest) -> Iterator[Parsers]:
    process = Parsers(str(request.param))
    yield process
    process.end()


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ledger_driver.c, built."""
    source = Path(__file__).with_name("ledger_driver.c")
    return compile_program(tmp_path_factory.mktemp("ledger") / "driver", [source])


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Pages]:
    """Pages of a grant of two GPUs."""
    folder = str(tmp_path / "grant")
    limits = [GpuLimit(uuid, LIMIT) for uuid in UUIDS]
    yield pages.create(folder, limits, container="c", libcuda="/c", libnvml="/n", ledger="/l")
    pages.remove(folder)


@pytest.fixture
def start(program: Path, made: Pages) -> Iterator[Start]:
    """One more process on these pages; all end with the test."""
    started: list[Driver] = []

    def begin() -> Driver:
        started.append(Driver(program, made))
        return started[-1]

    yield begin
    for driver in started:
        driver.end()


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulated]:
    """Two simulated GPUs."""
    yield capped.simulate(tmp_path_factory.mktemp("sim"), "a100-80gb:2")


@pytest.fixture
def grant(driver: Simulated, request: pytest.FixtureRequest) -> Grant:
    name = re.sub(r"\W", "_", request.node.name)
    return driver.grant(USUAL_LIMIT, USUAL_LIMIT // 2, context=CONTEXT, name=name)


@pytest.fixture
def client(grant: Grant) -> Iterator[Client]:
    client = Client(grant.preload()).begin()
    yield client
    client.kill()
