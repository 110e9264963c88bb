"""The image that is made of this machine's own Python."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from gpuportion.cli import rootfs
from gpuportion.errors import GpuportionError

EXTRA = Path(__file__)


@pytest.fixture(scope="module")
def image() -> bytes:
    out = io.BytesIO()
    rootfs.write(out, clients=["nvidia-ml-py"], extra={"/opt/deep/er/extra.py": str(EXTRA)})
    return out.getvalue()


@pytest.fixture(scope="module")
def members(image: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(image)) as tar:
        listed = tar.getmembers()
    assert len({member.name for member in listed}) == len(listed), "docker refuses a path that is there twice"
    return {member.name: member for member in listed}


def test_every_folder_is_there_and_open_to_all(members: dict[str, tarfile.TarInfo]) -> None:
    """Containers may run as anybody, while on this machine some of these folders are root's alone."""
    for name in members:
        folder = os.path.dirname(name)
        if folder:
            assert members[folder].isdir() and members[folder].mode & 0o755 == 0o755, folder
    assert members["tmp"].mode == 0o1777


def test_everything_is_roots_and_nothing_is_secret(members: dict[str, tarfile.TarInfo]) -> None:
    """Owners of this machine mean nothing in the image; neither setuid bits nor private files get in."""
    for member in members.values():
        assert (member.uid, member.gid) == (0, 0)
        assert member.issym() or member.mode in (0o644, 0o755, 0o1777), member.name


def test_what_was_asked_for_is_there(members: dict[str, tarfile.TarInfo]) -> None:
    """The interpreter, the client, the extra file, the commands; no driver of NVIDIA's."""
    names = set(members)
    assert rootfs.python().lstrip("/") in names
    assert f"{rootfs.site_folder()}/pynvml.py".lstrip("/") in names
    assert "opt/deep/er/extra.py" in names
    assert {f"usr/bin/{command}" for command in rootfs.COMMANDS.split()} <= names
    assert not [name for name in names if "libcuda.so" in name or "libnvidia-ml" in name]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: chroot")
@pytest.mark.skipif(shutil.which("chroot") is None, reason="needs chroot")
def test_it_runs(image: bytes, tmp_path: Path) -> None:
    """As a user of its own, with an empty environment: nothing of it depends on this machine's."""
    with tarfile.open(fileobj=io.BytesIO(image)) as tar:
        tar.extraction_filter = staticmethod(tarfile.tar_filter) if hasattr(tarfile, "tar_filter") else None
        tar.extractall(tmp_path)
    for folder in (tmp_path, *tmp_path.parents):
        if folder.is_relative_to("/tmp") and folder != Path("/tmp"):
            folder.chmod(0o755)
    code = "import ssl, sqlite3, ctypes, pynvml, os; ctypes.CDLL('libdl.so.2'); print(os.getuid())"
    for words, said in {
        ("/usr/local/bin/python3", "-c", code): "1234\n",
        ("/bin/sh", "-c", "echo $(id -u) | cat; kill -0 $$"): "1234\n",
    }.items():
        done = subprocess.run(
            ["chroot", "--userspec=1234:1234", str(tmp_path), *words],
            capture_output=True,
            text=True,
            check=False,
            env={"PATH": "/usr/local/bin:/usr/bin:/usr/sbin"},
        )
        assert (done.returncode, done.stdout) == (0, said), done.stderr


def test_a_client_that_is_not_installed_is_said() -> None:
    """With the command that installs it."""
    with pytest.raises(GpuportionError, match="pip install no-such-client"):
        rootfs.write(io.BytesIO(), clients=["no-such-client"])


def test_libraries_are_found_through_other_libraries() -> None:
    """The loader is asked: it knows run paths, and its own name is in the answer."""
    found = rootfs.needed([os.path.realpath(shutil.which("sh") or "/bin/sh"), str(EXTRA)])
    names = {os.path.basename(path) for path in found}
    assert "libc.so.6" in names and "libdl.so.2" in names
    assert any(name.startswith("ld-linux") for name in names)
    assert rootfs.needed([str(EXTRA)]) == set()
