"""A storm of kills, stops, forks and resizes on a real ledger; an observer compares it with what is really held.

1 000 kills here; 10 000 with GPUPORTION_TEST_LONG=1, or as many as GPUPORTION_STORM_KILLS says.
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
from tests.native import storm_record
from tests.native.ledger_build import compile_program, have_compiler
from tests.native.storm_record import LONG, Record

pytestmark = pytest.mark.skipif(not have_compiler(), reason="needs a C compiler (cc)")

KILLS = int(os.environ.get("GPUPORTION_STORM_KILLS") or (10_000 if LONG else 1_000))
STORM = Path(__file__).with_name("ledger_storm.c")
COUNTED = ("-include", str(STORM.with_name("ledger_steps.h")), "-Wl,--wrap=gp_os_pause")


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Pages]:
    folder = str(tmp_path / "grant")
    limits = [GpuLimit(bytes(16), 4 << 30)]
    yield pages.create(folder, limits, container="storm", libcuda="/c", libnvml="/n", ledger="/l")
    pages.remove(folder)


@pytest.mark.timeout(60 + KILLS // 5)
def test_a_storm_of_kills_leaves_the_account_right(tmp_path: Path, made: Pages) -> None:
    """Never more held than accounted, never more accounted than allowed; at the end all of it is free. And who is
    stopped at any instruction has nobody wait: beside them, calls take few accesses to shared words, and no pause."""
    program, seed = compile_program(tmp_path / "storm", [STORM], *COUNTED), storm_record.seed()
    command = [str(program), made.ledger, made.policy, str(KILLS), str(seed)]
    with (
        Record("ledger", seed, [made.ledger, made.policy], lambda: pages.read_ledger(made.ledger)) as record,
        record.progress.open("a") as progress,
    ):
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=progress, text=True, check=False)
        assert done.returncode == 0, record.progress.read_text()[-500:]
        told = json.loads(done.stdout)
        record.note(**told)
        assert told["kills"] >= KILLS
        assert min(told["refusals"], told["forks"], told["checks"], told["alone"], told["resizes"]) > 0
        assert pages.holders(made.ledger) == 0
