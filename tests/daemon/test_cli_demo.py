"""`gpuportion demo`, on a simulated GPU: it shows what it claims and leaves nothing."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
pytestmark = [
    pytest.mark.containers,
    pytest.mark.clients,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: starts dockerd"),
    pytest.mark.skipif(shutil.which("dockerd", path=PATH) is None, reason="needs dockerd"),
]


def start(**options: Any) -> subprocess.Popen[str]:
    # A shell's background job, as CI may be, ignores Ctrl-C, and so would everything below it.
    own = ["env", "--default-signal=INT", sys.executable]
    return subprocess.Popen(
        [*own, "-u", "-m", "gpuportion", "demo", "--sim", "a100-80gb:1"],
        env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def traces() -> set[str]:
    """Processes, mounts and folders of demos, whichever."""
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    folders = [str(path) for path in Path("/tmp").glob("gpuportion-demo-*")]
    commands = [_command(pid) for pid in os.listdir("/proc") if pid.isdigit()]
    return {text for text in (*mounts, *folders, *commands) if "/tmp/gpuportion-demo-" in text}


def _command(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").replace("\0", " ")
    except OSError:
        return ""


def test_the_demo_shows_what_it_claims_and_leaves_nothing() -> None:
    """Each claim is checked by the demo itself; here, that the words a reader looks for are there."""
    before = traces()
    with start() as demo:
        said, errors = demo.communicate(timeout=240)
    assert demo.returncode == 0, f"{said}\n{errors}"
    for words in (
        "docker run -d --name=ann",
        "gpuportion run --gpu-memory=1G",
        "CUDA_ERROR_OUT_OF_MEMORY",
        "GP201",
        "GP101",
        "docker: Error response from daemon",
        "interposer",
        "nothing of this stays",
    ):
        assert words in said, words
    assert traces() == before


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_nothing_either(sign: signal.Signals) -> None:
    """Ctrl-C, or the end of a CI job, while containers run."""
    before = traces()
    with start() as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            if "docker logs ann" in line:
                break
        for _ in range(3):  # who is in a hurry presses it again
            demo.send_signal(sign)
            time.sleep(0.2)
        demo.communicate(timeout=120)
    assert demo.returncode == 130
    assert traces() == before
