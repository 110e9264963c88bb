"""Folders of pages that another thread takes away: all of them, each with what became of it."""

from __future__ import annotations

import os
import select
from functools import partial
from pathlib import Path

import pytest

from gpuportion.allocator.sweeper import MOST, Gone, Sweeper


def wait(sweeper: Sweeper) -> None:
    select.select([sweeper.wake], [], [])


def test_what_was_handed_over_goes_and_is_told(tmp_path: Path) -> None:
    """More at once than are taken in one go, and one that was never there."""
    sweeper, gone = Sweeper(), dict[str, "Exception | None"]()
    names = [f"{number:04}" for number in range(2 * MOST)]
    for name in names:
        (tmp_path / name / "ledger").mkdir(parents=True)
        (tmp_path / name / "policy").touch()
        (tmp_path / f"{name}.note").touch()
    for name in [*names, "nothing"]:
        sweeper.sweep(Gone(f"{tmp_path}/{name}", f"{tmp_path}/{name}.note", partial(gone.__setitem__, name)))
    sweeper.start()
    sweeper.hand_over()
    while len(gone) < len(names) + 1:
        wait(sweeper)
        sweeper.take()
    assert gone == dict.fromkeys([*names, "nothing"]) and os.listdir(tmp_path) == []
    sweeper.stop(60)


def test_many_do_not_wait_for_a_quiet_moment(tmp_path: Path) -> None:
    """Nobody says that there is one; the last of them alone waits for it."""
    sweeper, gone = Sweeper(), list[object]()
    sweeper.start()
    for number in range(MOST + 1):
        (tmp_path / f"{number:04}").mkdir()
        sweeper.sweep(Gone(f"{tmp_path}/{number:04}", "", gone.append))
    while len(gone) < MOST:
        wait(sweeper)
        sweeper.take()
    assert gone == [None] * MOST and os.listdir(tmp_path) == [f"{MOST:04}"]
    sweeper.stop(60)
    assert os.listdir(tmp_path) == []


def test_one_that_cannot_go_keeps_no_other(tmp_path: Path) -> None:
    """It is told which it is and why."""
    sweeper, gone = Sweeper(), dict[str, "Exception | None"]()
    (tmp_path / "file").touch()
    for name in "ab":
        (tmp_path / name).mkdir()
    for path in ("a", "file/below", "b"):
        sweeper.sweep(Gone(f"{tmp_path}/{path}", "", partial(gone.__setitem__, path)))
    sweeper.start()
    sweeper.stop(60)
    wait(sweeper)
    sweeper.take()
    assert sorted(os.listdir(tmp_path)) == ["file"] and gone["a"] is None and gone["b"] is None
    trouble = gone["file/below"]
    assert isinstance(trouble, OSError) and (trouble.filename, trouble.errno) == (
        f"{tmp_path}/file/below",
        20,
    )


def test_what_goes_wrong_after_one_does_not_keep_the_next(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is a bug, and said so."""
    sweeper, gone = Sweeper(), list[object]()

    def fail(trouble: Exception | None) -> None:
        raise LookupError("no such grant")

    sweeper.sweep(Gone(f"{tmp_path}/a", "", fail))
    sweeper.sweep(Gone(f"{tmp_path}/b", "", gone.append))
    sweeper.start()
    sweeper.stop(60)
    wait(sweeper)
    sweeper.take()
    assert gone == [None] and "no such grant" in caplog.text
    sweeper.take()  # nothing is there


def test_a_bug_in_the_removal_is_told_to_whoever_waits_for_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Each of that batch, who try again later; the thread goes on."""
    sweeper, gone = Sweeper(), dict[str, "Exception | None"]()
    nowhere = f"{tmp_path}/\ud800"  # no path that the kernel could be told
    (tmp_path / "a").mkdir()
    for name, path in (("a", f"{tmp_path}/a"), ("nowhere", nowhere)):
        sweeper.sweep(Gone(path, "", partial(gone.__setitem__, name)))
    sweeper.start()
    sweeper.hand_over()
    while len(gone) < 2:
        wait(sweeper)
        sweeper.take()
    assert all(isinstance(trouble, UnicodeEncodeError) for trouble in gone.values())
    assert "a bug, met when the pages of 2 grants were removed" in caplog.text
    sweeper.sweep(Gone(f"{tmp_path}/a", "", partial(gone.__setitem__, "a")))
    sweeper.hand_over()
    wait(sweeper)
    sweeper.take()
    assert gone["a"] is None and os.listdir(tmp_path) == []
    sweeper.stop(60)
