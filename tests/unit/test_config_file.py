"""Replacing a file of root's: whole, with its owner and mode, through a link, never where it is unsafe."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from gpuportion.errors import GpuportionError
from gpuportion.shim.engines import config_file


def test_a_replaced_file_keeps_its_mode(tmp_path: Path) -> None:
    """A private configuration stays private."""
    path = tmp_path / "daemon.json"
    path.write_text("old")
    path.chmod(0o640)
    inode = path.stat().st_ino
    config_file.replace(str(path), b"new")
    assert path.read_text() == "new" and stat.S_IMODE(path.stat().st_mode) == 0o640
    assert path.stat().st_ino != inode, "a reader of the old one sees the old one whole"
    assert os.listdir(tmp_path) == ["daemon.json"]


def test_a_new_file_and_its_folder_are_readable(tmp_path: Path) -> None:
    """/etc/docker may not be there yet."""
    path = tmp_path / "etc/docker/daemon.json"
    config_file.replace(str(path), b"new")
    assert stat.S_IMODE(path.stat().st_mode) == 0o644 and stat.S_IMODE(path.parent.stat().st_mode) == 0o755


def test_a_link_stays_and_its_file_is_replaced(tmp_path: Path) -> None:
    """Configuration management often links into a folder of its own."""
    real = tmp_path / "real.json"
    real.write_text("old")
    link = tmp_path / "daemon.json"
    link.symlink_to("real.json")
    config_file.replace(str(link), b"new")
    assert link.is_symlink() and real.read_text() == "new"
    config_file.remove(str(link))
    assert not real.exists()


def test_a_failure_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    """Here: what was to be written is no bytes."""
    path = tmp_path / "daemon.json"
    path.write_text("old")
    with pytest.raises(TypeError):
        config_file.replace(str(path), "text")  # type: ignore[arg-type]
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["daemon.json"]


def refusal(path: Path) -> str:
    with pytest.raises(GpuportionError) as refused:
        config_file.read(str(path))
    assert refused.value.code == "GP308"
    return str(refused.value)


def test_what_is_no_file_of_roots_is_refused(tmp_path: Path) -> None:
    """A folder, a pipe, a link to nothing, a file that anybody can write, a huge one."""
    assert "is not a plain file" in refusal(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    assert "is not a plain file" in refusal(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("nothing")
    assert "a link to a file that is not there" in refusal(tmp_path / "link")
    (tmp_path / "open").write_text("x")
    (tmp_path / "open").chmod(0o666)
    assert "others than root can write it" in refusal(tmp_path / "open")
    (tmp_path / "huge").write_bytes(b" " * (config_file.MAX_BYTES + 1))
    assert "larger than 1 MiB" in refusal(tmp_path / "huge")


def test_a_folder_that_anybody_can_write_is_refused(tmp_path: Path) -> None:
    """Whoever may rename there could exchange the file under our hands."""
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o777)
    (folder / "y").touch()
    with pytest.raises(GpuportionError, match="others than root can write in"):
        config_file.replace(f"{folder}/x", b"")
    with pytest.raises(GpuportionError, match="others than root can write in"):
        config_file.remove(f"{folder}/y")
    assert os.listdir(folder) == ["y"]


def test_no_file_is_no_text(tmp_path: Path) -> None:
    """The engine's defaults hold then."""
    assert config_file.read(str(tmp_path / "none")) is None
    config_file.remove(str(tmp_path / "none"))
