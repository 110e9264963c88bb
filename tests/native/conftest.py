"""The launcher in both of its builds, and the parsers of the C programs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

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
