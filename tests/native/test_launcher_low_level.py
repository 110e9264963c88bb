"""Which OCI runtime does the work, and which never does."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.launcher import Launcher
from tests.support.parsers import Parsers


@pytest.fixture
def runtime(tmp_path: Path) -> Path:
    path = tmp_path / "some-runc"
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def find(parsers: Parsers, named: str, config: Path) -> tuple[bool, str]:
    good, answer = parsers.ask("low-level", named, str(config))
    return good, answer.decode()


def test_the_engines_environment_comes_first(parsers: Parsers, runtime: Path, tmp_path: Path) -> None:
    """Even where there is a file."""
    config = tmp_path / "runtime.conf"
    config.write_text("runtime=/bin/true\n")
    config.chmod(0o644)
    assert find(parsers, str(runtime), config) == (True, str(runtime))


@pytest.mark.parametrize("named", ["runc", "./runc", "/nonexistent/runc", "/tmp"])
def test_a_name_that_is_no_program_is_refused(parsers: Parsers, tmp_path: Path, named: str) -> None:
    """It is never passed over in favour of another one."""
    good, why = find(parsers, named, tmp_path / "none")
    assert not good
    assert why.startswith("GP310 ") and f"GPUPORTION_RUNTIME names {named}".replace('"', "") in why.replace(
        '"', ""
    )


def test_a_file_without_execute_permission_is_refused(
    parsers: Parsers, runtime: Path, tmp_path: Path
) -> None:
    """execve would fail after the grant was reserved."""
    runtime.chmod(0o644)
    assert not find(parsers, str(runtime), tmp_path / "none")[0]


@pytest.mark.parametrize("name", ["nvidia-container-runtime", "nvidia-container-runtime.cdi"])
def test_the_nvidia_runtime_is_refused(parsers: Parsers, runtime: Path, tmp_path: Path, name: str) -> None:
    """By name and behind a link: it would undo the edit."""
    nvidia = tmp_path / name
    nvidia.write_text("#!/bin/sh\n")
    nvidia.chmod(0o755)
    link = tmp_path / "runc"
    link.symlink_to(nvidia)
    for path in (nvidia, link):
        good, why = find(parsers, str(path), tmp_path / "none")
        assert not good and "whole GPUs" in why


def test_the_file_names_it_where_the_environment_does_not(
    parsers: Parsers, runtime: Path, tmp_path: Path
) -> None:
    """Comments and blank lines are fine."""
    if os.geteuid() != 0:
        pytest.skip("needs root: the file must be root's")
    config = tmp_path / "runtime.conf"
    config.write_text(f"# which runtime\n\n  runtime={runtime} \r\n")
    config.chmod(0o644)
    assert find(parsers, "", config) == (True, str(runtime))


@pytest.mark.parametrize(
    "text,mode,owner",
    [
        ("runtime=/bin/true\n", 0o664, 0),
        ("runtime=/bin/true\n", 0o646, 0),
        ("runtime=/bin/true\n", 0o644, 65534),
        ("runtim=/bin/true\n", 0o644, 0),
        ("runtime = /bin/true\n", 0o644, 0),
        ("runtime=true\n", 0o644, 0),
        ("#" * 5000, 0o644, 0),
    ],
)
def test_a_file_that_is_not_roots_alone_or_wrong_is_refused(
    parsers: Parsers, tmp_path: Path, text: str, mode: int, owner: int
) -> None:
    """What it names runs as root; a mistake in it is told, with the file's name."""
    if os.geteuid() != 0:
        pytest.skip("needs root: gives files away")
    config = tmp_path / "runtime.conf"
    config.write_text(text)
    config.chmod(mode)
    os.chown(config, owner, owner)
    good, why = find(parsers, "", config)
    assert not good and str(config) in why


def test_a_file_that_names_nothing_leaves_the_search(parsers: Parsers, tmp_path: Path) -> None:
    """runc or crun from the usual places."""
    if os.geteuid() != 0:
        pytest.skip("needs root: the file must be root's")
    config = tmp_path / "runtime.conf"
    config.write_text("# nothing yet\n")
    config.chmod(0o644)
    assert find(parsers, "", config) == find(parsers, "", tmp_path / "none")


def test_without_any_name_runc_or_crun_is_found(parsers: Parsers, tmp_path: Path) -> None:
    """The first in the usual places; where there is none, the sentence says where it looked."""
    folders = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"]
    found = [f"{folder}/{name}" for folder in folders for name in ("runc", "crun")]
    there = [path for path in found if os.access(path, os.X_OK)]
    good, answer = find(parsers, "", tmp_path / "none")
    assert (good, answer) == (True, there[0]) if there else not good and "neither runc nor crun" in answer


def test_it_never_starts_itself(tmp_path: Path) -> None:
    """A link or a second name of the launcher would exec it for ever."""
    launcher = Launcher(tmp_path, "gpuportion-runtime-sanitized")
    link = tmp_path / "myrunc"
    link.symlink_to(launcher.program)
    result = launcher.run("state", "c", env={"GPUPORTION_RUNTIME": str(link)})
    assert result.returncode == 1
    assert b"gpuportion-runtime itself" in result.stderr


def test_a_runtime_that_cannot_be_started_is_told(tmp_path: Path) -> None:
    """No program inside: execve fails, and the log has the reason."""
    launcher = Launcher(tmp_path, "gpuportion-runtime-sanitized")
    launcher.runtime.write_bytes(b"\x7fELF but not really")
    result = launcher.run("--log", str(launcher.log), "state", "c")
    assert result.returncode == 1
    assert "could not be started" in launcher.logged()[0]["msg"]
