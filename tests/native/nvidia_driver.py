"""NVIDIA's user-space driver, fetched at test time: it loads and answers on a machine without a GPU.

Debian's non-free component has it; the mirror is the one that this machine's apt uses. It goes to a cache folder of
the user's (`~/.cache/gpuportion-tests`, or where GPUPORTION_TEST_CACHE says), unpacked, never installed, and is
nobody's to pass on. Knows nothing of what is tested with it.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

PACKAGES = ("libcuda1", "libnvidia-ml1", "nvidia-smi", "libnvidia-ptxjitcompiler1")
SUITES = {535: "bookworm", 550: "trixie"}
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


class UnavailableError(Exception):
    """Why there is no driver to test with."""


@dataclass(frozen=True)
class Driver:
    """An unpacked user-space driver."""

    branch: int
    libcuda: Path
    libnvml: Path
    smi: Path

    @property
    def folder(self) -> Path:
        """Where its libraries lie, for LD_LIBRARY_PATH."""
        return self.libcuda.parent


def cache_folder() -> Path:
    """Where downloads are kept between runs."""
    return Path(os.environ.get("GPUPORTION_TEST_CACHE", Path.home() / ".cache" / "gpuportion-tests"))


def _mirror() -> str:
    """The address of the Debian archive that this machine's apt uses."""
    if not shutil.which("apt-get") or not KEYRING.exists():
        raise UnavailableError(
            "NVIDIA's driver is fetched by apt from Debian; this machine has no Debian apt"
        )
    targets = ["apt-get", "indextargets", "--format", "$(ORIGIN)|$(REPO_URI)", "Created-By: Packages"]
    listed = subprocess.run(targets, capture_output=True, text=True, check=False).stdout
    for line in listed.splitlines():
        origin, _, address = line.partition("|")
        if (origin == "Debian" or not origin) and "/debian/" in address:
            return address
    raise UnavailableError("apt is not configured for a Debian archive")


def _apt(folder: Path, suite: str, *arguments: str) -> None:
    """apt-get with lists, cache and sources of its own: nothing of the system's is read or changed."""
    options = {
        "Dir::Etc::SourceList": folder / "sources.list",
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::State": folder / "state",
        "Dir::Cache": folder / "cache",
        "APT::Sandbox::User": "root",
        "APT::Default-Release": suite,
    }
    command = ["apt-get", "-q", *(f"-o{key}={value}" for key, value in options.items()), *arguments]
    done = subprocess.run(
        command,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode:
        raise UnavailableError(f"apt-get {arguments[0]} failed: {done.stderr.strip()[-300:]}")


def _download(folder: Path, suite: str) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("state/lists/partial", "cache/archives/partial", "root"):
        (folder / name).mkdir(parents=True)
    (folder / "state" / "status").touch()
    source = f"deb [arch=amd64 signed-by={KEYRING}] {_mirror()} {suite} non-free\n"
    (folder / "sources.list").write_text(source, encoding="ascii")
    _apt(folder, suite, "update")
    _apt(folder, suite, "download", *PACKAGES)
    for package in folder.glob("*.deb"):
        subprocess.run(["dpkg", "-x", package, folder / "root"], check=True)
        package.unlink()
    (folder / "complete").touch()


def _the(folder: Path, pattern: str) -> Path:
    found = sorted(path for path in folder.glob(pattern) if not path.is_symlink())
    if not found:
        raise UnavailableError(f"the downloaded packages hold no {pattern}")
    return found[-1]


def driver(branch: int) -> Driver:
    """The driver of a branch, fetched if it is not there yet."""
    if platform.machine() != "x86_64":
        raise UnavailableError("the archive's driver is tested on x86-64 only")
    folder = cache_folder() / f"driver-{branch}"
    if not (folder / "complete").exists():
        _download(folder, SUITES[branch])
    root = folder / "root"
    return Driver(
        branch,
        _the(root, f"usr/lib/**/libcuda.so.{branch}.*"),
        _the(root, f"usr/lib/**/libnvidia-ml.so.{branch}.*"),
        _the(root, "usr/**/nvidia-smi"),
    )
