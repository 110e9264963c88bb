"""Images of other makes than the tests' own: an older C library, musl, an init system, another architecture.

Each is made of Debian's packages as they are (tests/native/debian.py) and a client that is compiled against the
image's own C library; or it is the tests' image with a few files more. Knows nothing of what is tried with them.
"""

from __future__ import annotations

import contextlib
import io
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Final

import pytest

from gpuportion import paths
from gpuportion.cli.private_dockerd import PrivateDocker
from tests.native.debian import UnavailableError, cache_folder

SOURCE: Final = Path(__file__).with_name("cuda_session.c")
FOLDERS: Final = ("proc", "sys", "dev", "run", "tmp", "etc", "root")
BINDINGS: Final = "cuda-bindings==12.9.4"
"""The last that runs on the Python of Debian bullseye."""
GLIBC: Final = "usr/lib/x86_64-linux-gnu"
MUSL: Final = "usr/lib/x86_64-linux-musl"

Content = bytes | Path
"""Of a file in an image: its bytes, or a file of this machine, taken with its mode."""


class Link(str):
    """A symlink's target."""


def import_root(
    engine: PrivateDocker,
    name: str,
    root: Path | None,
    files: Mapping[str, Content | Link],
    folders: Sequence[str] = FOLDERS,
    env: Mapping[str, str] | None = None,
) -> str:
    """The image `name` of an unpacked root and more files, none of them in it; None: of these alone."""

    def write(out: IO[bytes]) -> None:
        with tarfile.open(fileobj=out, mode="w|", format=tarfile.GNU_FORMAT) as tar:
            if root is not None:
                tar.add(root, ".")
            for folder in folders:
                if root is not None and (root / folder).exists():
                    continue  # docker refuses a path that comes twice
                entry = tarfile.TarInfo(folder)
                entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755
                tar.addfile(entry)
            for path, content in files.items():
                _add(tar, path, content)

    engine.import_image(name, write, changes=[f"ENV {key}={value}" for key, value in (env or {}).items()])
    return name


def _add(tar: tarfile.TarFile, path: str, content: Content | Link) -> None:
    if isinstance(content, Path):
        tar.add(content, path)
        return
    entry = tarfile.TarInfo(path)
    entry.mode = 0o755
    if isinstance(content, Link):
        entry.type, entry.linkname = tarfile.SYMTYPE, str(content)
        tar.addfile(entry)
        return
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))


def derive(
    engine: PrivateDocker,
    name: str,
    base: str,
    files: Mapping[str, Content | Link],
    env: Mapping[str, str] | None = None,
) -> str:
    """The image `name`: `base` with more files and environment, by a Dockerfile as users write it."""
    lines = [f"FROM {base}", "COPY files /", *(f"ENV {key}={value}" for key, value in (env or {}).items())]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "files").mkdir()
        for path, content in files.items():
            at = Path(folder) / "files" / path
            at.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, Link):
                at.symlink_to(str(content))
            elif isinstance(content, Path):
                shutil.copy(content, at)
            else:
                at.write_bytes(content)
                at.chmod(0o755)
        (Path(folder) / "Dockerfile").write_text("\n".join(lines) + "\n")
        done = engine.run("build", "--quiet", "--network=none", "-t", name, folder, check=False)
        assert done.returncode == 0, done.stderr
    return name


def fetched(fetch: Callable[..., Path], *arguments: str) -> Path:
    """What `fetch` has; a skip where it can't be had."""
    try:
        return fetch(*arguments)
    except UnavailableError as why:
        pytest.skip(f"needs packages of another system: {why}")


def client(folder: Path, name: str, *flags: str) -> Path:
    """cuda_session.c, compiled for this machine's own C library unless `flags` say otherwise."""
    program = folder / name
    command = ["gcc", "-O1", "-o", str(program), str(SOURCE), *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return program


def simulated_libcuda() -> Path:
    """What directly linked clients are linked with."""
    return Path(paths.package_file("sim/lib/libcuda.so.1"))


def direct_client(folder: Path, name: str) -> Path:
    """Linked with libcuda.so.1, against this machine's own C library."""
    return client(folder, name, "-DDIRECT", str(simulated_libcuda()))


def old_direct_client(folder: Path, name: str, root: Path) -> Path:
    """Linked with libcuda.so.1 and with the glibc, and by its start code, that lie unpacked in `root`."""
    lib, include = root / GLIBC, root / "usr/include"
    libc = (str(root / "lib/x86_64-linux-gnu/libc.so.6"), str(lib / "libc_nonshared.a"))
    own = [f"-I{include}", f"-I{include}/x86_64-linux-gnu", "-DDIRECT", str(simulated_libcuda())]
    return client(folder, name, *own, *_bare(lib), *libc, str(lib / "crtn.o"), "-Wl,--allow-shlib-undefined")


def musl_client(folder: Path, name: str, root: Path) -> Path:
    """Opens the driver; linked with the musl that lies unpacked in `root`."""
    lib, libc = root / MUSL, (f"-L{root}/lib/x86_64-linux-musl", "-lc")
    loader = "-Wl,--dynamic-linker=/lib/ld-musl-x86_64.so.1"
    own = [f"-I{root}/usr/include/x86_64-linux-musl"]
    return client(folder, name, *own, *_bare(lib), *libc, str(lib / "crtn.o"), loader)


def _bare(lib: Path) -> tuple[str, ...]:
    """Nothing of this machine's C library; the compiler's own headers stay."""
    asked = subprocess.run(["gcc", "-print-file-name=include"], capture_output=True, text=True, check=True)
    include = ("-nostdinc", "-isystem", asked.stdout.strip())
    start = (str(lib / "crt1.o"), str(lib / "crti.o"))
    return (*include, "-nostdlib", "-fno-stack-protector", "-no-pie", *start)


def bindings_for_python39() -> Path:
    """NVIDIA's cuda-bindings as Python 3.9 imports them, from the cache."""
    folder = cache_folder() / "cuda-bindings-cp39"
    if (folder / "complete").exists():
        return folder / "site"
    shutil.rmtree(folder, ignore_errors=True)
    choice = ["--python-version=3.9", "--implementation=cp", "--only-binary=:all:"]
    platforms = ["--platform=manylinux2014_x86_64", "--platform=manylinux_2_28_x86_64"]
    where = ["--no-compile", "--target", str(folder / "site")]
    command = [sys.executable, "-m", "pip", "install", "--quiet", *choice, *platforms, *where, BINDINGS]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UnavailableError(f"pip could not fetch {BINDINGS}: {done.stderr.strip()[-300:]}")
    for pattern in ("*.cpp", "*.pyx", "*.pxd"):
        for source in (folder / "site").rglob(pattern):
            source.unlink()
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder / "site" / "bin")
    (folder / "complete").touch()
    return folder / "site"
