"""The hook entries are exactly what the hook program understands."""

from __future__ import annotations

import pytest

from gpuportion.hooks import stages


def test_the_one_hook_has_its_arguments_timeout_and_environment() -> None:
    """Everything that the hook needs is in its arguments; nothing is inherited."""
    got = stages.entries("/opt/bin/gpuportion-hook", socket="/run/s.sock", token="t0", container="c1")
    env = ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]
    confirm = ["gpuportion-hook", "confirm", "--socket", "/run/s.sock", "--token", "t0", "--id", "c1"]
    path = "/opt/bin/gpuportion-hook"
    assert got == {
        "createRuntime": {"path": path, "args": confirm, "env": env, "timeout": 60},
    }


@pytest.mark.parametrize(
    ("verb", "runtime", "run"),
    [
        ("create", "/usr/bin/crun", True),
        ("run", "/usr/bin/crun", True),
        ("restore", "/usr/sbin/runc", True),
        ("restore", "/usr/bin/crun", False),
        ("restore", "/opt/crun/bin/runc", True),
    ],
)
def test_only_crun_restores_without_hooks(verb: str, runtime: str, run: bool) -> None:
    """Its name tells, not the folder that it lies in."""
    assert stages.are_run(verb, runtime) is run
