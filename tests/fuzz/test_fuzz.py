"""Each target for a few seconds; `make test-long`: ten minutes together. What tests/corpus keeps goes first."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.__main__ import TARGETS

ROOT = Path(__file__).parents[2]
LONG = bool(os.environ.get("GPUPORTION_TEST_LONG"))
SECONDS = {"socket": 240 if LONG else 10}
OTHERS = 120 if LONG else 6


@pytest.mark.parametrize("target", TARGETS)
def test_no_input_breaks_it(target: str) -> None:
    """No crash, no hang, and nothing taken that makes no sense; each target says what that is."""
    seconds = SECONDS.get(target, OTHERS)
    command = [sys.executable, "-W", "ignore", "-m", "tests.fuzz", target, "--seconds", str(seconds)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=seconds + 240, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
