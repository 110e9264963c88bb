"""`gpuportion config` and `why` as users meet them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.daemon import Daemon, Sleeper

from gpuportion.allocator.policy_file import PATH
from gpuportion.cli import why


def cli(*words: str, daemon: Daemon | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gpuportion", *words]
    env = daemon.env if daemon else None
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("rules", "status", "says"),
    [
        ("audit: stop\n", 0, "config.yaml: good"),
        ("audit: stop\nmargin: 64\n", 1, "line 2, key margin: it is no amount: 64 has no unit."),
        (None, 1, "GP305"),
    ],
)
def test_check_says_what_the_daemon_would_say(
    tmp_path: Path, rules: str | None, status: int, says: str
) -> None:
    """Without a daemon; nothing is changed by it."""
    path = tmp_path / "config.yaml"
    if rules is not None:
        path.write_text(rules)
    done = cli("config", "check", str(path))
    assert (done.returncode, says in done.stdout + done.stderr) == (status, True)


def test_show_prints_a_file_that_check_finds_good(daemon: Daemon, tmp_path: Path) -> None:
    """What is in force, the defaults too."""
    shown = cli("config", "show", daemon=daemon).stdout
    assert "placement: binpack" in shown and "margin: 64Mi" in shown
    heading = (
        "as the daemon keeps to it"
        if os.path.lexists(PATH)
        else f"# there is no {PATH}: nothing is restricted"
    )
    assert heading in shown.splitlines()[0]
    path = tmp_path / "shown.yaml"
    path.write_text(shown)
    assert cli("config", "check", str(path)).returncode == 0


def test_why_says_so_where_there_is_nothing_to_tell(daemon: Daemon) -> None:
    """A container that was refused nothing, and one that is not there."""
    granted = daemon.create("GPU_MEMORY_LIMIT=1G", id="calm")
    with Sleeper() as container:
        daemon.confirm(granted.token, container)
        assert cli("why", "calm", daemon=daemon).stdout == "calm was refused nothing\n"
        lost = cli("why", "storm", daemon=daemon)
        assert lost.returncode == 1 and "There are calm." in lost.stderr


def test_a_container_cannot_write_to_the_terminal_by_its_notes() -> None:
    """Names and calls come from the container."""
    note = {"age_s": 3, "gpu": 0, "pid": 7, "call": "\x1b[2J", "asked": 1 << 20, "used": 0, "grant": 1 << 30}
    answer = {"container": "c", "name": "\x1b[31m", "count": 1, "refusals": [note]}
    assert "\x1b" not in why.said(answer) and "1024 MiB" in why.said(answer)
    assert "its ledger is damaged (x)" in why.said({**answer, "damaged": "x"})
