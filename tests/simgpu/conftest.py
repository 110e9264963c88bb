"""Simulations of a test's own, with the libraries of the sources as they are now."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from gpuportion import simgpu
from gpuportion.simgpu import Sim
from tests.support.native import built

Start = Callable[..., Sim]


@pytest.fixture(scope="session")
def libraries() -> Path:
    """The folder of the two built libraries."""
    built("simnvml", "simgpu")
    return Path(built("simcuda", "simgpu")).parent / "lib"


@pytest.fixture
def start(tmp_path: Path, libraries: Path) -> Start:
    """Starts a simulation in the test's folder: `start("t4-16gb:2", costs={...}, seed=1)`."""

    def started(spec: str = "a100-80gb", **options: object) -> Sim:
        chosen = {"cdi_dir": None, "libraries": str(libraries), **options}
        return simgpu.start(spec, str(tmp_path / "sim"), **chosen)  # type: ignore[arg-type]

    return started


@pytest.fixture
def sim(start: Start) -> Sim:
    """One A100 with 80 GB and the default costs."""
    return start()
