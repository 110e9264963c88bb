"""A minimal root filesystem made from this machine's own Python, as a tar stream for `docker import`.

The demo and the tests need an image with real CUDA clients in it and may not have a network. So the image
holds what is here: the running interpreter with its standard library, the installed distributions that are
asked for (and what those require), a shell and a few commands, and every shared library that any of these
needs. Files keep the paths that they have on this machine, so that run paths and prefixes stay true.

    with open("image.tar", "wb") as out:
        rootfs.write(out, clients=["cuda-bindings", "nvidia-ml-py"])

Knows nothing of docker, and never puts an NVIDIA driver in: that comes with the grant.
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import metadata
from shutil import which
from typing import IO, Final

from gpuportion.errors import GpuportionError

COMMANDS: Final = "cat cp dd env head id ls mkdir mv rm sh sleep touch tr true truncate"
CLIENTS: Final = ("cuda-bindings", "nvidia-ml-py")
"""Distributions, by the names that pip knows. Their requirements come along where they are installed."""

UNSEEN: Final = (
    "libdl.so.2",
    "libm.so.6",
    "libnss_files.so.2",
    "libpthread.so.0",
    "libresolv.so.2",
    "librt.so.1",
    "libutil.so.1",
)
"""Parts of libc that programs open by name, so that no ELF header tells of them."""

LEFT_OUT: Final = (
    "__phello__",
    "dist-packages",
    "ensurepip",
    "idlelib",
    "lib2to3",
    "site-packages",
    "test",
    "tests",
    "tkinter",
    "turtledemo",
)
"""Folders of the standard library that no client needs; the tests are half of its size."""

FOLDERS: Final = {
    "tmp": 0o1777,
    "root": 0o755,
    "proc": 0o755,
    "sys": 0o755,
    "dev": 0o755,
    "run": 0o755,
    "etc": 0o755,
}
TEXTS: Final = {
    "/etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/sh\n",
    "/etc/group": "root:x:0:\nnogroup:x:65534:\n",
    "/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
}
KILL: Final = '#!/bin/sh\nkill "$@"\n'
"""A command as well as the shell's own, for `docker exec`; Debian has it in a package that may be missing."""

LIBRARY: Final = re.compile(r"^\s+(?:\S+ => )?(?P<path>/\S+) \(0x[0-9a-f]+\)$", re.MULTILINE)


def write(
    out: IO[bytes], *, clients: Iterable[str] = CLIENTS, extra: Mapping[str, str] | None = None
) -> None:
    """Write the tar to `out`, which need not be seekable.

    `extra` maps a path in the image to a file on this machine; its shared libraries come along.
    """
    chosen: dict[str, str] = {}
    for image, host in _sources(clients, extra or {}):
        chosen.setdefault(image, host)
    for library in needed(sorted(chosen.values())):
        chosen.setdefault(_true_folder(library), library)
    with tarfile.open(fileobj=out, mode="w|", format=tarfile.GNU_FORMAT) as tar:
        _write_frame(tar)
        for folder in sorted(_folders([*chosen, *_python_links()])):
            tar.addfile(_entry(folder, tarfile.DIRTYPE, 0o755))
        for link, target in _merged().items():
            _write_link(tar, link, target)
        _write_text(tar, "/usr/bin/kill", KILL, 0o755)
        for image in sorted(chosen):
            _write_file(tar, image, chosen[image])
        for link, target in _python_links().items():
            _write_link(tar, link, target)


def python() -> str:
    """The interpreter's path in the image; /usr/local/bin/python3 points to it."""
    return f"{sys.base_prefix}/bin/python{sys.version_info[0]}.{sys.version_info[1]}"


def site_folder() -> str:
    """Where the image's interpreter looks for installed distributions: its own answer, not our venv's."""
    code = "import site; print(site.getsitepackages()[0])"
    answer = subprocess.run(
        [os.path.realpath(sys.executable), "-I", "-c", code], capture_output=True, text=True, check=True
    )
    return answer.stdout.strip()


def needed(files: Sequence[str]) -> set[str]:
    """Absolute paths of the shared libraries that the ELF files among `files` need, the loader included."""
    dynamic = [path for path in files if is_elf(path)]
    if not dynamic:
        return set()
    # Its status is 1 as soon as one of the files is static: that is not a failure here.
    answer = subprocess.run(["ldd", *dynamic], capture_output=True, text=True, check=False)
    found = {match["path"] for match in LIBRARY.finditer(answer.stdout)}
    libc = next((path for path in sorted(found) if path.endswith("/libc.so.6")), "")
    beside = (f"{os.path.dirname(libc)}/{name}" for name in UNSEEN)
    return found | {path for path in beside if os.path.exists(path)}


def is_elf(path: str) -> bool:
    with open(path, "rb") as file:
        return file.read(4) == b"\x7fELF"


def distribution_files(name: str) -> Iterator[tuple[str, str]]:
    """(path below a site folder, absolute path here) of the files of `name` and of what it requires."""
    for dist in _with_requirements(name):
        for file in dist.files or ():
            source = str(dist.locate_file(file))
            if not str(file).startswith("..") and _is_wanted(source):
                yield str(file), source


def _with_requirements(name: str) -> list[metadata.Distribution]:
    found: dict[str, metadata.Distribution] = {}
    waiting = [(name, True)]
    while waiting:
        wanted, must = waiting.pop()
        key = re.sub(r"[-_.]+", "-", wanted).lower()
        if key in found:
            continue
        try:
            found[key] = metadata.distribution(wanted)
        except metadata.PackageNotFoundError:
            if must:
                raise GpuportionError(
                    "GP305",
                    what=f"the Python distribution {wanted}",
                    why=f"install it: {sys.executable} -m pip install {wanted}",
                ) from None
            continue
        waiting += [(required, False) for required in _requirements(found[key])]
    return list(found.values())


def _requirements(dist: metadata.Distribution) -> Iterator[str]:
    """Names only. Other markers than extras aren't judged: what they rule out isn't installed."""
    for line in dist.requires or ():
        name = re.match(r"[A-Za-z0-9._-]+", line)
        if name is not None and "extra ==" not in line:
            yield name[0]


def _sources(clients: Iterable[str], extra: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    yield from extra.items()
    yield python(), os.path.realpath(sys.executable)
    for command in COMMANDS.split():
        found = which(command)
        if found is None:
            raise GpuportionError(
                "GP305", what=f"the command {command}", why="the image's root filesystem needs it"
            )
        yield f"/usr/bin/{command}", os.path.realpath(found)
    yield from _standard_library()
    site = site_folder()
    for client in clients:
        for relative, source in distribution_files(client):
            yield f"{site}/{relative}", source


def _standard_library() -> Iterator[tuple[str, str]]:
    top = sysconfig.get_path("stdlib")
    for folder, folders, files in os.walk(top):
        folders[:] = [name for name in folders if name not in LEFT_OUT and not name.startswith("config-")]
        for name in files:
            source = f"{folder}/{name}"
            if _is_wanted(source):
                yield source, source


def _is_wanted(path: str) -> bool:
    """A file that is there, no static library, no byte code of another interpreter or level."""
    if path.endswith((".a", ".exe", ".opt-1.pyc", ".opt-2.pyc")):
        return False
    if path.endswith(".pyc") and sys.implementation.cache_tag not in path:
        return False
    return os.path.isfile(path)


def _true_folder(path: str) -> str:
    """`path` with its folder's links resolved, for /lib is one; the name stays: the loader looks for it."""
    folder, name = os.path.split(path)
    return f"{os.path.realpath(folder)}/{name}"


def _python_links() -> dict[str, str]:
    """Image path -> target of the names under which people call the interpreter."""
    return {
        path: python() for path in ("/usr/local/bin/python3", "/usr/local/bin/python") if path != python()
    }


def _folders(paths: Iterable[str]) -> set[str]:
    """Every folder on the way to `paths`, to be said outright: /root is 0700 here, users need not be root."""
    found: set[str] = set()
    for path in paths:
        while (path := os.path.dirname(path)) not in found | {"/", ""}:
            found.add(path)
    return (found | {f"/{target}" for target in _merged().values()}) - {f"/{name}" for name in FOLDERS}


def _merged() -> dict[str, str]:
    """/bin -> usr/bin and the like, as on this machine, or the libraries' paths would not be true."""
    links = ("/bin", "/sbin", "/lib", "/lib64")
    return {link: os.readlink(link).lstrip("/") for link in links if os.path.islink(link)}


def _write_frame(tar: tarfile.TarFile) -> None:
    for name, mode in FOLDERS.items():
        tar.addfile(_entry(name, tarfile.DIRTYPE, mode))
    for path, text in TEXTS.items():
        _write_text(tar, path, text, 0o644)


def _write_text(tar: tarfile.TarFile, path: str, text: str, mode: int) -> None:
    entry = _entry(path, tarfile.REGTYPE, mode)
    entry.size = len(text)
    tar.addfile(entry, io.BytesIO(text.encode()))


def _write_link(tar: tarfile.TarFile, path: str, target: str) -> None:
    entry = _entry(path, tarfile.SYMTYPE, 0o777)
    entry.linkname = target
    tar.addfile(entry)


def _write_file(tar: tarfile.TarFile, image: str, host: str) -> None:
    with open(host, "rb") as file:
        status = os.fstat(file.fileno())
        entry = _entry(image, tarfile.REGTYPE, 0o755 if status.st_mode & 0o111 else 0o644)
        entry.size = status.st_size
        entry.mtime = int(status.st_mtime)  # byte code is valid only for its source's time
        tar.addfile(entry, file)


def _entry(path: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(path.lstrip("/"))
    entry.type, entry.mode, entry.mtime = kind, mode, int(time.time())
    return entry
