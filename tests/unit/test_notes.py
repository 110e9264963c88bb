"""Notes of grants: what is read back, and what is not taken for a grant."""

from __future__ import annotations

import dataclasses
import os
import subprocess
from pathlib import Path

import pytest

from gpuportion.allocator.devices import Share
from gpuportion.allocator.grant import Grant
from gpuportion.allocator.lifecycle import State
from gpuportion.allocator.mig.portion import MigPortion
from gpuportion.allocator.notes import Notes
from gpuportion.allocator.processes import Process

BOOT = "b" * 36
PORTION = MigPortion("GPU-1", 0, 0, 7, 0, "MIG-1", "1g.5gb", 4864 << 20, 1, 7)
GRANT = Grant(
    token="0" * 32,
    boot=BOOT,
    kind="container",
    root="/run/runc",
    id="c1",
    uid=0,
    shares=(
        Share("GPU-1", 0, 1 << 30, exclusive=True, context=5, tolerated=7),
        Share("GPU-1", 0, 4864 << 20, mig=PORTION),
    ),
    created=1.5,
    deadline=61.5,
    name="train",
    user="ann",
    request={"memory": [1 << 30]},
    creator=Process(10, 20),
    holder=Process(11, 21),
    cgroups=("/sys/fs/cgroup/pids/docker/c1",),
    state=State.ACTIVE,
    generation=3,
)


@pytest.fixture
def notes(tmp_path: Path) -> Notes:
    return Notes(f"{tmp_path}/notes")


def test_a_grant_is_read_back_whole(notes: Notes, tmp_path: Path) -> None:
    """Every field; what was written last; in files of root alone."""
    notes.write(dataclasses.replace(GRANT, user="bob"))
    notes.write(GRANT)
    assert notes.lost([], BOOT) == [GRANT]
    assert os.stat(tmp_path / "notes").st_mode & 0o777 == 0o700
    assert os.stat(tmp_path / "notes" / GRANT.token).st_mode & 0o777 == 0o600


def test_what_the_store_knows_is_not_lost(notes: Notes) -> None:
    """Nor removed."""
    notes.write(GRANT)
    assert notes.lost([GRANT.token], BOOT) == []
    assert notes.lost([], BOOT) == [GRANT]


@pytest.mark.parametrize("text", ["", "{}", "[1]", "nonsense", '[1,"0","active","b",0,"{}"]', "[" * 9999])
def test_what_cannot_be_read_is_no_grant(notes: Notes, tmp_path: Path, text: str) -> None:
    """And is removed, as is what a killed daemon left half written."""
    notes.write(GRANT)
    (tmp_path / "notes" / GRANT.token).write_text(text)
    (tmp_path / "notes" / f"{'1' * 32}.new").write_text(text)
    assert notes.lost([], BOOT) == [] and os.listdir(tmp_path / "notes") == []


def test_another_boot_has_no_grants(notes: Notes, tmp_path: Path) -> None:
    """Where the run directory is kept over one."""
    notes.write(GRANT)
    assert notes.lost([], "another") == [] and os.listdir(tmp_path / "notes") == []


def test_a_note_under_another_name_is_none(notes: Notes, tmp_path: Path) -> None:
    """Its token is what its hook knows it by."""
    notes.write(GRANT)
    os.rename(tmp_path / "notes" / GRANT.token, tmp_path / "notes" / ("1" * 32))
    assert notes.lost([], BOOT) == []


def test_no_room_costs_nobody_a_grant(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is said, and tried again by the next daemon."""
    (tmp_path / "notes").write_text("a file where the folder should be")
    Notes(f"{tmp_path}/notes").write(GRANT)
    assert "is in the store alone" in caplog.text


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: mounts a tmpfs")
def test_a_note_that_finds_no_room_leaves_what_was_there(tmp_path: Path) -> None:
    """The note that it was to replace; or nothing, never half of one."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", str(tmp_path)], check=True)
    try:
        notes = Notes(f"{tmp_path}/notes")
        notes.write(GRANT)
        with open(tmp_path / "full", "wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
            while True:
                file.write(bytes(4096))
        notes.write(dataclasses.replace(GRANT, user="bob"))
        notes.write(dataclasses.replace(GRANT, token="1" * 32))
        assert os.listdir(tmp_path / "notes") == [GRANT.token] and notes.lost([], BOOT) == [GRANT]
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_what_has_none_gets_one(notes: Notes, tmp_path: Path) -> None:
    """As after an upgrade; one that is as it should be is left."""
    notes.write(GRANT)
    before = os.stat(tmp_path / "notes" / GRANT.token).st_ino
    notes.complete([GRANT, dataclasses.replace(GRANT, token="1" * 32)])
    assert [grant.user for grant in notes.lost([], BOOT)] == ["ann", "ann"]
    assert os.stat(tmp_path / "notes" / GRANT.token).st_ino == before


def test_half_a_note_becomes_whole(notes: Notes, tmp_path: Path) -> None:
    """As a daemon leaves it that is killed while it writes one; the next has the row."""
    notes.write(GRANT)
    path = tmp_path / "notes" / GRANT.token
    for size in (0, path.stat().st_size // 2):
        os.truncate(path, size)
        notes.complete([GRANT])
        assert notes.lost([], BOOT) == [GRANT]
