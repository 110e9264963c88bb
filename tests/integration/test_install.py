"""`gpuportion install` on a real, running dockerd: it knows the runtime at once, and forgets it again."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gpuportion.cli.private_dockerd import PrivateDocker
from gpuportion.shim.engines import docker

pytestmark = pytest.mark.containers

RUNTIME = "/usr/sbin/gpuportion-runtime-of-the-test"


@pytest.fixture
def engine() -> Iterator[PrivateDocker]:
    if os.geteuid() != 0:
        pytest.skip("needs root: starts dockerd")
    if shutil.which("dockerd", path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None:
        pytest.skip("needs dockerd")
    folder = tempfile.mkdtemp(prefix="gpuportion-install-", dir="/tmp")  # a socket's path must be short
    try:
        with PrivateDocker(f"{folder}/docker") as running:
            yield running
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def runtimes(engine: PrivateDocker) -> tuple[Any, str]:
    """What dockerd itself says: the path of our runtime, and the default one."""
    told = json.loads(engine.run("info", "--format", "{{json .}}").stdout)
    return told["Runtimes"].get("gpuportion", {}).get("path"), told["DefaultRuntime"]


def until(engine: PrivateDocker, expected: tuple[Any, str]) -> None:
    """A reload takes a moment."""
    deadline = time.monotonic() + 30
    while (now := runtimes(engine)) != expected:
        assert time.monotonic() < deadline, f"dockerd says {now}, expected {expected}"
        time.sleep(0.1)


@pytest.mark.parametrize("edit", [False, True], ids=["untouched", "edited in between"])
def test_a_running_dockerd_learns_and_forgets_the_runtime(
    engine: PrivateDocker, edit: bool, tmp_path: Path
) -> None:
    """Without a restart; and the file is as it was, whatever somebody added in between."""
    config, state = Path(engine.config_file), str(tmp_path)
    pidfile = json.loads(config.read_text())["pidfile"]
    before = config.read_bytes()
    change = docker.plan_install(str(config), RUNTIME, set_default=True, state_dir=state)
    lines = docker.apply(change, state_dir=state, pidfile=pidfile)
    assert lines[1:] == [f"told dockerd (process {engine.pid}) to reload; running containers go on"]
    until(engine, (RUNTIME, "gpuportion"))
    if edit:
        config.write_text(json.dumps({**json.loads(config.read_text()), "labels": ["a=b"]}))
    docker.apply(docker.plan_uninstall(str(config), state_dir=state), state_dir=state, pidfile=pidfile)
    if edit:
        assert json.loads(config.read_text()) == {**json.loads(before), "labels": ["a=b"]}
    else:
        assert config.read_bytes() == before
    until(engine, (None, "runc"))
