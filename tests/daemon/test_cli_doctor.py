"""`gpuportion doctor` on the engines of a node: real programs, files of theirs as administrators leave them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gpuportion import paths
from gpuportion.cli import children
from gpuportion.cli.finding import program
from gpuportion.shim.engines.table import ENGINES

Doctor = Callable[..., dict[str, dict[str, Any]]]
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: lays files over /etc")


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    """What lies over /etc while the command runs; the engines' own files are not seen."""
    for folder in ("docker", "containerd", "containers", "crio", "gpuportion"):
        path = tmp_path / "etc" / folder
        path.mkdir(parents=True)
        os.setxattr(path, "trusted.overlay.opaque", b"y")
    return tmp_path / "etc"


@pytest.fixture
def node(etc: Path, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """The command `gpuportion` on a host that has crio, too."""
    stand_in = tmp_path / "bin/crio"
    stand_in.parent.mkdir()
    stand_in.write_text("#!/bin/sh\necho crio version 1.31.4\n")
    stand_in.chmod(0o755)
    env = {
        **os.environ,
        "PATH": f"{stand_in.parent}:{os.environ['PATH']}",
        "PYTHONPATH": ":".join(sys.path),
        "GPUPORTION_RUN_DIR": str(tmp_path / "run"),
        "GPUPORTION_STATE_DIR": str(tmp_path / "lib"),
    }
    mount = f'mount -t overlay -o lowerdir={etc}:/etc none /etc && exec "$0" "$@"'

    def call(*words: str) -> subprocess.CompletedProcess[str]:
        command = ["unshare", "--mount", "sh", "-c", mount, sys.executable, "-m", "gpuportion", *words]
        return subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=60)

    return call


@pytest.fixture
def doctor(node: Callable[..., subprocess.CompletedProcess[str]]) -> Doctor:
    """Name of an engine -> what is found of it. Engines that this machine lacks are not asked about."""

    def call() -> dict[str, dict[str, Any]]:
        done = node("doctor", "--json")
        assert done.stdout, done.stderr
        return {one["check"]: one for one in json.loads(done.stdout)}

    return call


@pytest.fixture(autouse=True)
def engines_are_there() -> None:
    lacking = [each.program for name, each in ENGINES.items() if name != "crio" and not program(each.program)]
    if lacking:
        pytest.skip(f"needs {', '.join(lacking)}")


def install(etc: Path, name: str, default: bool = False) -> None:
    """As `gpuportion install` leaves the engine's files, laid over /etc."""
    ours = paths.package_file("bin/gpuportion-runtime")
    for edit in ENGINES[name].edits(str(etc.parent / ENGINES[name].config.lstrip("/")), ours, default):
        text = edit.put(None)
        if text is not None:
            path = Path(edit.config)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text.replace(str(etc.parent), ""))


def test_where_no_engine_knows_us_each_is_a_problem(doctor: Doctor) -> None:
    """With its version and the command that mends it."""
    found = doctor()
    for name in ENGINES:
        assert not found[name]["ok"]
        assert "does not name our runtime" in found[name]["text"]
        assert found[name]["next"] == f"gpuportion install --engine {name}"
    assert found["crio"]["text"].startswith("1.31.4 (no version was run)")


@pytest.mark.parametrize("name", ENGINES)
def test_one_engine_that_knows_us_is_enough(name: str, doctor: Doctor, etc: Path) -> None:
    """The others are said, and are no problem: docker brings a containerd along."""
    install(etc, name)
    found = doctor()
    assert (found[name]["ok"], found[name]["next"]) == (True, ""), found[name]
    assert found[name]["text"].endswith(f"{ENGINES[name].config} names our runtime")
    others = [found[other] for other in ENGINES if other != name]
    assert all(other["ok"] and "gpuportion install" in other["next"] for other in others)


def test_our_runtime_as_the_default_is_as_good(doctor: Doctor, etc: Path) -> None:
    """What `--set-as-default` wrote."""
    for name in ENGINES:
        install(etc, name, default=True)
    found = doctor()
    assert [(found[name]["ok"], found[name]["next"]) for name in ENGINES] == [(True, "")] * len(ENGINES)


def test_a_runtime_of_another_place_is_a_problem(doctor: Doctor, etc: Path) -> None:
    """What is registered was moved or belongs to another installation."""
    runtimes = {"runtimes": {"gpuportion": {"path": "/old/gpuportion-runtime"}}}
    (etc / "docker/daemon.json").write_text(json.dumps(runtimes))
    found = doctor()["docker"]
    assert not found["ok"] and found["next"] == "gpuportion install --engine docker"


V2 = 'version = 2\n[plugins."io.containerd.grpc.v1.cri".containerd]\ndefault_runtime_name = "nvidia"\n'
NVIDIAS = {
    "docker": (
        "docker/daemon.json",
        '{"default-runtime": "nvidia", "runtimes": {"nvidia": {"path": "nvidia-container-runtime"}}}',
    ),
    "containerd": ("containerd/config.toml", V2),
    "podman": (
        "containers/containers.conf",
        '[engine]\nruntime = "n"\n[engine.runtimes]\nn = ["/usr/bin/nvidia-container-runtime"]\n',
    ),
    "crio": (
        "crio/crio.conf",
        '[crio.runtime]\ndefault_runtime = "n"\n'
        '[crio.runtime.runtimes.n]\nruntime_path = "/usr/bin/nvidia-container-runtime.cdi"\n',
    ),
}


def test_a_default_runtime_of_nvidias_is_said(doctor: Doctor, etc: Path) -> None:
    """It is no mistake, but whoever asks for no portion has whole GPUs then."""
    for file, text in NVIDIAS.values():
        (etc / file).write_text(text)
    found = doctor()
    for name in NVIDIAS:
        assert "hands whole GPUs" in found[name]["next"]
        assert f"gpuportion install --engine {name} --set-as-default" in found[name]["next"]


def test_a_file_that_cannot_be_used_is_said_with_its_place(doctor: Doctor, etc: Path) -> None:
    """As `gpuportion install` would."""
    (etc / "containerd/config.toml").write_text('disabled_plugins = ["cri"]\n')
    (etc / "docker/daemon.json").write_text("{\n  oops\n}\n")
    found = doctor()
    assert "GP307" in found["containerd"]["text"] and "disabled_plugins" in found["containerd"]["text"]
    assert "GP307 /etc/docker/daemon.json, line 2" in found["docker"]["text"]


@pytest.fixture
def engine_over_nvidia(tmp_path: Path) -> Iterator[None]:
    """A running program called dockerd whose environment makes our launcher NVIDIA's runtime."""
    ready = tmp_path / "ready"
    code = f"import time; open('/proc/self/comm','w').write('dockerd'); open('{ready}','w'); time.sleep(600)"
    env = {**os.environ, "GPUPORTION_RUNTIME": "/usr/bin/nvidia-container-runtime"}
    process = subprocess.Popen([sys.executable, "-c", code], env=env)
    try:
        while not ready.exists():
            assert process.poll() is None
        yield
    finally:
        children.end(process)


@pytest.mark.usefixtures("engine_over_nvidia")
def test_an_engine_that_makes_us_nvidias_runtime_is_a_problem(doctor: Doctor, etc: Path) -> None:
    """Each container with that would be refused: GP310."""
    install(etc, "docker")
    found = doctor()["docker"]
    assert not found["ok"]
    assert (
        "GPUPORTION_RUNTIME=/usr/bin/nvidia-container-runtime" in found["next"] and "GP310" in found["next"]
    )


def test_the_report_says_which_low_level_runtime_serves(
    node: Callable[..., subprocess.CompletedProcess[str]], etc: Path
) -> None:
    """And refuses NVIDIA's there, with the way out."""
    assert "runc version" in node("doctor").stdout or "crun version" in node("doctor").stdout
    (etc / "gpuportion/runtime.conf").write_text("runtime=/usr/bin/nvidia-container-runtime\n")
    assert "GP310 the low-level OCI runtime" in node("doctor").stdout
