"""A checkpoint of processes that have opened CUDA isn't restored: their account is in a ledger that is gone."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from gpuportion import wire
from tests.support.launcher import EDITED, REQUEST, Launcher, config, edit_it, refused_with
from tests.support.scripted_daemon import ScriptedDaemon

MAGIC = bytes.fromhex("1943565416363254")


def lock(kind: int) -> bytes:
    """As criu writes one: its size, then protobuf's fields, the kind of lock first."""
    fields = bytes([0x08, kind, 0x10, 1, 0x18, 1, 0x20, 5, 0x28, 0, 0x30, 1])
    return struct.pack("<I", len(fields)) + fields


POSIX, FLOCK, DESCRIPTION = lock(1), lock(2), lock(4)
FINE = {"none": MAGIC, "posix and flock": MAGIC + POSIX + FLOCK}
NOT_FINE = {
    "one of a description": MAGIC + DESCRIPTION,
    "one among others": MAGIC + POSIX + DESCRIPTION + FLOCK,
    "empty": b"",
    "cut in its names": MAGIC[:5],
    "cut in a size": MAGIC + POSIX + b"\x10\0",
    "cut in a lock": MAGIC + POSIX[:-1],
    "nothing in a lock": MAGIC + bytes(4),
    "a size beyond all": MAGIC + b"\xff\xff\xff\xff" + POSIX[4:],
    "another field first": MAGIC + POSIX[:4] + b"\x10" + POSIX[5:],
    "a kind of many bytes": MAGIC + POSIX[:5] + b"\x81" + POSIX[6:],
    "too large": MAGIC + POSIX * 70_000,
}


@pytest.fixture
def images(launcher: Launcher) -> Path:
    folder = launcher.bundle.parent / "images"
    folder.mkdir()
    launcher.write(config(REQUEST))
    return folder


def restore(launcher: Launcher, *words: str) -> bytes:
    """What was said where it went on, and what became of config.json."""
    with ScriptedDaemon(launcher.run_dir, edit_it):
        result = launcher.run("--log", str(launcher.log), "restore", *words, "c1")
    if result.returncode:
        text = refused_with(launcher, result)
        assert text.startswith("GP302") and "a process in the checkpoint had opened CUDA" in text
    return launcher.config.read_bytes()


@pytest.mark.parametrize("content", FINE.values(), ids=FINE)
def test_other_locks_are_no_hindrance(launcher: Launcher, images: Path, content: bytes) -> None:
    """Of a program that locks its own files."""
    (images / "filelocks.img").write_bytes(content)
    assert restore(launcher, "--image-path", str(images)) == EDITED


def test_without_locks_there_is_no_such_image(launcher: Launcher, images: Path) -> None:
    """Nor where the folder is not there, which the runtime says better."""
    assert restore(launcher, "--image-path", str(images)) == EDITED
    assert restore(launcher, "--image-path", str(images / "none")) == EDITED


@pytest.mark.parametrize("content", NOT_FINE.values(), ids=NOT_FINE)
def test_a_lock_of_a_description_is_refused(launcher: Launcher, images: Path, content: bytes) -> None:
    """And so is what is not as criu writes it."""
    before = launcher.config.read_bytes()
    (images / "filelocks.img").write_bytes(content)
    assert restore(launcher, "--image-path", str(images)) == before


def test_images_lie_where_runc_looks_for_them(launcher: Launcher, images: Path) -> None:
    """Without the option, and by a path from where it was called."""
    before = launcher.config.read_bytes()
    (images / "filelocks.img").write_bytes(MAGIC + DESCRIPTION)
    assert restore(launcher, "--image-path=../images") == before
    images.rename(launcher.bundle.parent / "checkpoint")
    (launcher.bundle / "checkpoint").symlink_to("../checkpoint")
    with ScriptedDaemon(launcher.run_dir, edit_it):
        result = launcher.run("restore", "c1")
    assert result.returncode == 1 and b"GP302" in result.stderr


@pytest.mark.parametrize("verb", ["create", "restore"])
def test_who_gets_no_grant_is_left_alone(launcher: Launcher, images: Path, verb: str) -> None:
    """A restore without a grant, and a create beside such images."""
    (images / "filelocks.img").write_bytes(MAGIC + DESCRIPTION)
    answer = wire.Message({}) if verb == "restore" else edit_it(wire.Message({}))
    words = ["--image-path", str(images)] if verb == "restore" else []
    with ScriptedDaemon(launcher.run_dir, lambda _: answer):
        assert launcher.run(verb, *words, "c1").returncode == 0
    assert launcher.recorded() is not None
