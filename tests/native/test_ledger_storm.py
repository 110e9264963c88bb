"""A storm of kills, stops, forks and resizes on a real ledger; an observer compares it with what is really held.

1 000 kills here; GPUPORTION_STORM_KILLS=10000 for a long one.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpuportion.allocator import pages
from gpuportion.allocator.pages import GpuLimit, Pages
from tests.native.ledger_build import compile_program, have_compiler

pytestmark = pytest.mark.skipif(not have_compiler(), reason="needs a C compiler (cc)")

KILLS = int(os.environ.get("GPUPORTION_STORM_KILLS", "1000"))
STORM = Path(__file__).with_name("ledger_storm.c")


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Pages]:
    folder = str(tmp_path / "grant")
    limits = [GpuLimit(bytes(16), 4 << 30)]
    yield pages.create(folder, limits, container="storm", libcuda="/c", libnvml="/n", ledger="/l")
    pages.remove(folder)


@pytest.mark.timeout(60 + KILLS // 5)
def test_a_storm_of_kills_leaves_the_account_right(tmp_path: Path, made: Pages) -> None:
    """Never more held than accounted, never more accounted than allowed; at the end all of it is free."""
    program = compile_program(tmp_path / "storm", [STORM])
    command = [str(program), made.ledger, made.policy, str(KILLS), "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["kills"] >= KILLS
    assert min(told["refusals"], told["forks"], told["checks"], told["alone"], told["resizes"]) > 0
    assert pages.holders(made.ledger) == 0
