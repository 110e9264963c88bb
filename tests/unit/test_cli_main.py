"""The command line as a whole: what is started, and how errors end it."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from gpuportion.__main__ import main, overview
from gpuportion.cli import registry
from gpuportion.cli.command import Plain
from gpuportion.errors import GpuportionError, RefusedError


def fails(error: BaseException) -> Callable[..., Plain]:
    class Failing(Plain):
        help = "fail"

        def run(self, args: object) -> int:
            raise error

    return lambda name: Failing()


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (GpuportionError("GP305", what="it", why="gone"), 1, "GP305 it was not found: gone\n"),
        (GpuportionError("GP305", exit_status=2, what="it", why="gone"), 2, "GP305 it was not found: gone\n"),
        (RefusedError("GP101 no room"), 1, "GP101 no room\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_an_error_of_ours_becomes_a_sentence_and_a_status(
    error: BaseException,
    status: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """On stderr, without a traceback."""
    monkeypatch.setattr(registry, "load", fails(error))
    assert main(["ps"]) == status
    assert capsys.readouterr() == ("", said)


def test_any_other_error_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a bug, and the traceback is what its report needs."""
    monkeypatch.setattr(registry, "load", fails(ZeroDivisionError("bug")))
    with pytest.raises(ZeroDivisionError):
        main(["ps"])


def test_who_may_not_is_told_to_be_root(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A sentence for users; for root, who may do all, it is a bug and keeps its traceback."""
    if os.geteuid() != 0:
        pytest.skip("needs root: becomes another user")
    monkeypatch.setattr(
        registry, "load", fails(PermissionError(errno.EACCES, "Permission denied", "/its/path"))
    )
    with pytest.raises(PermissionError):
        main(["ps"])
    os.seteuid(65534)
    try:
        assert main(["ps"]) == 1
    finally:
        os.seteuid(0)
    said = "GP306 gpuportion ps failed: /its/path: permission denied. Run it as root.\n"
    assert capsys.readouterr() == ("", said)


def test_an_unknown_command_is_bad_usage_and_says_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    """2, as argparse does it for the rest."""
    assert main(["pss"]) == 2
    assert "Did you mean ps?" in capsys.readouterr().err


def test_without_a_command_the_list_is_shown_as_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    """On stderr, so that a script's output stays empty."""
    assert main([]) == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"{overview()}\n")


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    """With one line each."""
    assert main(["--help"]) == 0
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    assert listed == list(registry.MODULES)


@pytest.mark.parametrize("name", registry.MODULES)
def test_each_command_lies_in_the_file_of_its_name(name: str) -> None:
    """One command a file."""
    assert registry.MODULES[name] == f"gpuportion.cli.{name}"
    assert registry.load(name).help


def test_only_the_module_of_the_command_that_runs_is_imported() -> None:
    """Start-up is a feature: not the other commands, not what they need, nothing that is slow to load."""
    code = (
        "import sys; from gpuportion.__main__ import main; main(['ps']);"
        "print(*(set(sys.modules) - before), sep='\\n')"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; before = set(sys.modules); {code}"],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": ":".join(sys.path), "GPUPORTION_RUN_DIR": "/nonexistent"},
    )
    loaded = set(done.stdout.split())
    assert {name for name in loaded if name.startswith("gpuportion.cli.")} == {
        "gpuportion.cli.arguments",
        "gpuportion.cli.command",
        "gpuportion.cli.ps",
        "gpuportion.cli.registry",
        "gpuportion.cli.table",
    }
    assert not loaded & {
        "asyncio",
        "importlib.metadata",
        "logging",
        "subprocess",
        "tempfile",
        "gpuportion.allocator",
    }
    assert "GP301" in done.stderr


def test_a_reader_that_went_away_is_no_error() -> None:
    """`gpuportion --help | true` ends quietly."""
    command = f"{sys.executable} -m gpuportion --help | true"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": ":".join(sys.path), "PATH": "/usr/bin:/bin"},
    )
    assert (done.returncode, done.stderr) == (0, "")
