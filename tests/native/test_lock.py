"""The lock of a process's threads, under the sanitizers."""

from __future__ import annotations

import subprocess

import pytest

from tests.support import native


@pytest.mark.parametrize("sanitizer", ["address", "thread"])
def test_nobody_is_kept_out_of_a_lock(sanitizer: str) -> None:
    """Neither by a thread that takes it again whenever it has let go, nor by many; and one at a time has it."""
    program = native.built(f"lock_storm_{sanitizer}", "libcap_mem")
    env = {**native.SANITIZER_ENV}
    done = subprocess.run([program, "50"], env=env, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
