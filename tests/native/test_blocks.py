"""The table of blocks, driven against a model under the sanitizers."""

from __future__ import annotations

import subprocess

import pytest

from tests.support import native


@pytest.mark.parametrize("sanitizer", ["address", "thread"])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_table_holds_what_the_model_holds(sanitizer: str, seed: int) -> None:
    """One thread, several threads, and a forked child that finds it empty."""
    program = native.built(f"blocks_storm_{sanitizer}", "libcap_mem")
    env = {**native.SANITIZER_ENV}
    done = subprocess.run(
        [program, str(seed), "60000"], env=env, capture_output=True, text=True, check=False, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, "")
