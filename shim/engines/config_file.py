"""Reads and replaces an engine's configuration file as a whole, keeping its owner and mode.

A symlink is followed to the file that it means, and that file is replaced, so that the link stays. What
another user could exchange under our hands is refused: we write as root. Knows nothing of what is in it.
"""

from __future__ import annotations

import os
import stat
import tempfile
from typing import Final

from gpuportion.errors import GpuportionError

NEW_MODE: Final = 0o644
MAX_BYTES: Final = 1 << 20


def read(path: str) -> bytes | None:
    """What is in the file; None if there is none. GpuportionError GP308 if it is no plain file of root's."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        if os.path.islink(path):
            raise GpuportionError(
                "GP308", path=path, why="it is a link to a file that is not there"
            ) from None
        return None
    try:
        _check(path, os.fstat(handle))
        with open(handle, "rb", closefd=False) as file:
            data = file.read(MAX_BYTES + 1)
    finally:
        os.close(handle)
    if len(data) > MAX_BYTES:
        raise GpuportionError("GP308", path=path, why=f"it is larger than {MAX_BYTES >> 20} MiB")
    return data


def replace(path: str, data: bytes) -> None:
    """Write the file whole or not at all: a reader, or a crash, sees the old or the new one."""
    real = os.path.realpath(path)
    folder = os.path.dirname(real)
    os.makedirs(folder, mode=0o755, exist_ok=True)
    _check_folder(path, folder)
    handle, temporary = tempfile.mkstemp(dir=folder, prefix=f".{os.path.basename(real)}.")
    try:
        with open(handle, "wb") as file:
            _like_the_old_one(handle, real)
            file.write(data)
            file.flush()
            os.fsync(handle)
        os.replace(temporary, real)
    except BaseException:
        os.unlink(temporary)
        raise


def remove(path: str) -> None:
    """Unlink the file that `path` means; nothing to do where there is none."""
    real = os.path.realpath(path)
    if os.path.exists(real):
        _check_folder(path, os.path.dirname(real))
        os.unlink(real)


def _like_the_old_one(handle: int, path: str) -> None:
    try:
        old = os.stat(path)
    except FileNotFoundError:
        os.fchmod(handle, NEW_MODE)
        return
    os.fchown(handle, old.st_uid, old.st_gid)
    os.fchmod(handle, stat.S_IMODE(old.st_mode))


def _check(path: str, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise GpuportionError("GP308", path=path, why="it is not a plain file")
    if status.st_uid not in (0, os.geteuid()) or status.st_mode & stat.S_IWOTH:
        raise GpuportionError(
            "GP308", path=path, why="others than root can write it. Mend its owner and mode"
        )


def _check_folder(path: str, folder: str) -> None:
    status = os.stat(folder)
    if status.st_uid not in (0, os.geteuid()) or status.st_mode & stat.S_IWOTH:
        raise GpuportionError("GP308", path=path, why=f"others than root can write in {folder}")
