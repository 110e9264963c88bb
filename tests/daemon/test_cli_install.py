"""`gpuportion install` and `uninstall`: a real dockerd, and files of other engines. The texts are tested elsewhere."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gpuportion import paths
from gpuportion.cli.private_dockerd import PrivateDocker
from gpuportion.shim.engines.table import ENGINES

PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
Gpuportion = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def gpuportion(tmp_path: Path) -> Gpuportion:
    """The command, with state of its own and no daemon."""
    env = {
        **os.environ,
        "PYTHONPATH": ":".join(sys.path),
        "GPUPORTION_RUN_DIR": str(tmp_path / "run"),
        "GPUPORTION_STATE_DIR": str(tmp_path / "lib"),
    }

    def call(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "gpuportion", *words]
        return subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=60)

    return call


@pytest.fixture
def engine() -> Iterator[PrivateDocker]:
    if os.geteuid() != 0 or shutil.which("dockerd", path=PATH) is None:
        pytest.skip("needs root and dockerd")
    with PrivateDocker(f"/tmp/gpuportion-i{os.getpid()}") as running:
        yield running


def runtimes(engine: PrivateDocker) -> str:
    return engine.run("info", "--format", "{{json .Runtimes}} {{.DefaultRuntime}}").stdout


def until(condition: Callable[[], bool]) -> None:
    """A reload is a signal: nobody says when it is done."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def options(engine: PrivateDocker) -> tuple[str, ...]:
    return ("--engine=docker", "--config", engine.config_file, "--pidfile", f"{engine.folder}/dockerd.pid")


@pytest.mark.containers
def test_a_running_dockerd_learns_of_the_runtime_and_forgets_it(
    engine: PrivateDocker, gpuportion: Gpuportion
) -> None:
    """Without a restart; the file is as it was, byte for byte, in the end."""
    before = Path(engine.config_file).read_bytes()
    done = gpuportion("install", *options(engine))
    assert done.returncode == 0, done.stderr
    assert f"changed {engine.config_file}" in done.stdout and "docker run" in done.stdout
    assert "does not answer" in done.stderr, "the daemon does not run: said, or the next docker run surprises"
    assert paths.package_file("bin/gpuportion-runtime") in Path(engine.config_file).read_text()
    until(lambda: '"gpuportion"' in runtimes(engine))
    done = gpuportion("uninstall", *options(engine))
    assert done.returncode == 0, done.stderr
    assert Path(engine.config_file).read_bytes() == before
    until(lambda: '"gpuportion"' not in runtimes(engine))


@pytest.mark.containers
def test_taking_back_the_default_runtime_does_not_kill_dockerd(
    engine: PrivateDocker, gpuportion: Gpuportion
) -> None:
    """dockerd 20.10 dies of a reload after which its default runtime is none of its runtimes."""
    before = Path(engine.config_file).read_bytes()
    done = gpuportion("install", *options(engine), "--set-as-default")
    assert done.returncode == 0, done.stderr
    until(lambda: runtimes(engine).strip().endswith(" gpuportion"))
    done = gpuportion("uninstall", *options(engine))
    assert done.returncode == 0, done.stderr
    until(lambda: runtimes(engine).strip().endswith(" runc"))
    assert Path(engine.config_file).read_bytes() == before


@pytest.mark.parametrize("engine_name", ENGINES)
def test_a_dry_run_shows_the_change_and_makes_none(
    engine_name: str, gpuportion: Gpuportion, tmp_path: Path
) -> None:
    """As a diff; a file that is not there stays so."""
    config = tmp_path / "conf.d/config"
    done = gpuportion("install", "--engine", engine_name, "--dry-run", "--config", str(config))
    assert done.returncode == 0, done.stderr
    assert "+++" in done.stdout and "+" in done.stdout and "gpuportion-runtime" in done.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("engine_name", [name for name in ENGINES if name != "docker"])
def test_what_is_written_can_be_taken_back(engine_name: str, gpuportion: Gpuportion, tmp_path: Path) -> None:
    """Each file is said, and what to restart; in the end no file of ours is left."""
    words = ("--engine", engine_name, "--config", str(tmp_path / "conf.d/config"))
    done = gpuportion("install", *words)
    assert done.returncode == 0, done.stderr
    made = [path for path in (tmp_path / "conf.d").rglob("*") if path.is_file()]
    assert made and all(f"created {path}\n" in done.stdout for path in made)
    assert ENGINES[engine_name].reload in done.stdout
    assert "nothing to do" in gpuportion("install", *words).stdout
    done = gpuportion("uninstall", *words)
    assert all(f"removed {path}\n" in done.stdout for path in made), done.stderr
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_broken_file_is_left_alone(gpuportion: Gpuportion, tmp_path: Path) -> None:
    """With line and column of the mistake."""
    config = tmp_path / "daemon.json"
    config.write_text("{oops}")
    done = gpuportion("install", "--engine=docker", "--config", str(config))
    assert done.returncode == 1
    assert done.stderr.startswith("GP307 ") and "line 1" in done.stderr
    assert config.read_text() == "{oops}"
