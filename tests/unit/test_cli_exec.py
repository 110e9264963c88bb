"""`gpuportion exec` up to the point where it asks the daemon; then see tests/daemon/test_cli_exec.py."""

from __future__ import annotations

import pytest

from gpuportion.__main__ import main
from gpuportion.cli import exec


def test_the_callers_own_libraries_stay_behind_ours() -> None:
    """LD_PRELOAD and LD_LIBRARY_PATH are joined, everything else of the grant's goes before the caller's."""
    own = {"LD_PRELOAD": "libjemalloc.so.2", "LD_LIBRARY_PATH": "", "HOME": "/root", "X": "old"}
    granted = {"LD_PRELOAD": "/g/libcuda.so.1", "LD_LIBRARY_PATH": "/g", "X": "new"}
    assert exec.environment(own, granted) == {
        "LD_PRELOAD": "/g/libcuda.so.1:libjemalloc.so.2",
        "LD_LIBRARY_PATH": "/g",
        "HOME": "/root",
        "X": "new",
    }


def test_a_grant_that_sets_no_list_leaves_the_callers_alone() -> None:
    """In a mount namespace LD_LIBRARY_PATH is not needed."""
    assert exec.environment({"LD_LIBRARY_PATH": "/mine"}, {})["LD_LIBRARY_PATH"] == "/mine"


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["--gpu-memory", "4000", "--", "true"], 1, "GP102"),
        (
            ["--gpu-memory", "1G", "--", "no-such-command"],
            1,
            "GP305 the command no-such-command was not found",
        ),
        (["--gpu-memory", "1G"], 2, "name the command"),
        (["--gpu-memory", "1G", "--gpu-memroy", "1G", "true"], 2, "name the command"),
        (["--", "true"], 2, "--gpu-memory 4G"),
    ],
)
def test_a_mistake_is_said_before_anything_is_reserved(
    words: list[str], status: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """No daemon is asked: there is none here, and it is not missed."""
    try:
        ended = main(["exec", *words])
    except SystemExit as usage:
        ended = int(str(usage.code))
    assert ended == status
    assert said in capsys.readouterr().err
