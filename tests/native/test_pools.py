"""Pools that end while their last blocks are freed, by several threads."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.native import capped
from tests.native.ledger_build import FLAGS, call, have_compiler

pytestmark = pytest.mark.skipif(not have_compiler(), reason="needs a C compiler (cc)")

ROUNDS = 3000


def test_a_pool_that_ends_with_its_last_blocks_costs_nothing_after(tmp_path: Path) -> None:
    """Who destroys it and who frees its last blocks come at once; whoever is last gives its memory back."""
    program = tmp_path / "pool_storm"
    source = Path(__file__).with_name("pool_storm.c")
    headers = source.parents[2] / "libcap_mem" / "src"
    call("cc", *FLAGS, "-O2", f"-I{headers}", str(source), "-pthread", "-ldl", "-o", str(program))
    grant = capped.simulate(tmp_path).grant(1 << 30)
    done = subprocess.run(
        [str(program), str(grant.libcuda), str(ROUNDS)],
        env={**os.environ, **grant.env},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert (done.returncode, done.stderr) == (0, "")
    before, after = done.stdout.split()
    assert before == after
