"""Debian packages, fetched at test time and unpacked into a cache folder: never installed, nobody's to pass on.

apt is run with lists, cache and sources of its own, from the archive that this machine's apt uses; nothing of the
system's is read or changed. The cache is `~/.cache/gpuportion-tests`, or where GPUPORTION_TEST_CACHE says.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


class UnavailableError(Exception):
    """Why something cannot be had here."""


@dataclass(frozen=True)
class Archive:
    """Where packages come from, and by whose signature they are known."""

    address: str
    keyring: Path


def cache_folder() -> Path:
    """Where downloads are kept between runs."""
    return Path(os.environ.get("GPUPORTION_TEST_CACHE", Path.home() / ".cache" / "gpuportion-tests"))


def own() -> Archive:
    """The Debian archive that this machine's apt uses."""
    if not shutil.which("apt-get") or not KEYRING.exists():
        raise UnavailableError("this machine has no Debian apt to fetch it with")
    targets = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]
    listed = subprocess.run(targets, capture_output=True, text=True, check=False).stdout
    for address in listed.split():
        if address.rstrip("/").endswith("/debian"):
            return Archive(address, KEYRING)
    raise UnavailableError("this machine's apt is not configured for a Debian archive")


def _apt(folder: Path, *arguments: str) -> None:
    options = {
        "Dir::Etc::SourceList": folder / "sources.list",
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::State": folder / "state",
        "Dir::State::status": folder / "state" / "status",
        "Dir::Cache": folder / "cache",
        "APT::Sandbox::User": "root",
        "APT::Update::Error-Mode": "any",
        "Acquire::Check-Valid-Until": "false",
    }
    command = ["apt-get", "-q", *(f"-o{key}={value}" for key, value in options.items()), *arguments]
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=200,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except subprocess.TimeoutExpired as late:
        raise UnavailableError(f"apt-get {arguments[0]} did not end in 200 s") from late
    if done.returncode:
        raise UnavailableError(f"apt-get {arguments[0]} failed: {done.stderr.strip()[-300:]}")


def _empty(folder: Path, source: str) -> None:
    """apt's folders, where it finds nothing installed."""
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("state/lists/partial", "cache/archives/partial", "root"):
        (folder / name).mkdir(parents=True)
    (folder / "state" / "status").touch()
    (folder / "sources.list").write_text(source, encoding="ascii")


def _source(archive: Archive, architecture: str, suite: str, component: str) -> str:
    return f"deb [arch={architecture} signed-by={archive.keyring}] {archive.address} {suite} {component}\n"


def _fetch(folder: Path, source: str, packages: tuple[str, ...]) -> None:
    _empty(folder, source)
    _apt(folder, "update")
    _apt(folder, "download", *packages)
    for package in folder.glob("*.deb"):
        subprocess.run(["dpkg", "-x", package, folder / "root"], check=True)
        package.unlink()
    shutil.rmtree(folder / "state")
    shutil.rmtree(folder / "cache")
    (folder / "complete").touch()


def is_unpacked(name: str) -> bool:
    """It is in the cache, whole."""
    return (cache_folder() / name / "complete").exists()


def unpacked(
    name: str, suite: str, component: str, *packages: str, archive: Callable[[], Archive] = own
) -> Path:
    """The root folder in which these packages lie, fetched if they are not there yet."""
    if os.uname().machine != "x86_64":
        raise UnavailableError("tested with x86-64 packages only")
    folder = cache_folder() / name
    with _alone(folder):
        if not is_unpacked(name):
            _fetch(folder, _source(archive(), "amd64", suite, component), packages)
    return folder / "root"


def system(
    name: str,
    suite: str,
    *packages: str,
    architecture: str = "amd64",
    archive: Callable[[], Archive] = own,
) -> Path:
    """A root folder that programs can run in: the packages with all that they depend on. Nothing is configured."""
    if os.uname().machine != "x86_64":
        raise UnavailableError("tested with x86-64 packages only")
    folder = cache_folder() / name
    with _alone(folder):
        if not is_unpacked(name):
            _install(folder, _source(archive(), architecture, suite, "main"), packages, architecture)
    return folder / "root"


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Tests run in two processes at once, and both may want the same packages."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(f"{folder}.lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _install(folder: Path, source: str, packages: tuple[str, ...], architecture: str) -> None:
    _empty(folder, source)
    chosen = f"-oAPT::Architecture={architecture}"
    _apt(folder, chosen, f"-oAPT::Architectures={architecture}", "update")
    only = ("--no-install-recommends", "--download-only", "--yes", "install", *packages)
    _apt(folder, chosen, f"-oAPT::Architectures={architecture}", *only)
    _unpack_merged(folder)


def _unpack_merged(folder: Path) -> None:
    """Into a root where /bin, /lib and the like are links, as systemd of today wants it."""
    root = folder / "root"
    for link in ("bin", "sbin", "lib", "lib64"):
        (root / "usr" / link).mkdir(parents=True)
        (root / link).symlink_to(f"usr/{link}")
    for package in sorted((folder / "cache" / "archives").glob("*.deb")):
        with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE) as files:
            extract = ["tar", "-x", "--keep-directory-symlink", "-C", str(root)]
            subprocess.run(extract, stdin=files.stdout, check=True)
    shutil.rmtree(folder / "state")
    shutil.rmtree(folder / "cache")
    (folder / "complete").touch()


def one(root: Path, pattern: str) -> Path:
    """The file of that pattern that is no link."""
    found = sorted(path for path in root.glob(pattern) if path.is_file() and not path.is_symlink())
    if not found:
        raise UnavailableError(f"the downloaded packages hold no {pattern}")
    return found[-1]
