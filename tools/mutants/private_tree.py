"""A copy of the working tree below build/mutants, and an environment whose `gpuportion` is that copy.

The environment has the packages of the one that this runs in, without the project's own editable install.
What is the same in both places is not written again, so builds in the copy are incremental.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
PLACE: Final = ROOT / "build" / "mutants"
PARTS: Final = ("allocator", "cli", "hooks", "shim", "simgpu")
"""Folders that src/gpuportion holds as links."""

BUILD: Final = "build/tests"
"""Where tests/support/native.py builds; kept between runs."""


class CopyError(Exception):
    """The copy cannot be made or built; the text says why."""


def listed() -> list[str]:
    """Files of the working tree: those that git knows, and new ones that it does not ignore."""
    command = ["git", "-C", str(ROOT), "ls-files", "-coz", "--exclude-standard"]
    done = subprocess.run(command, capture_output=True, check=True)
    names = os.fsdecode(done.stdout).split("\0")
    return sorted(name for name in set(names) if name and os.path.lexists(ROOT / name))


class Tree:
    """One copy. `real_folders`: src/gpuportion holds the parts themselves instead of links."""

    def __init__(self, name: str, *, real_folders: bool = False) -> None:
        self.at = PLACE / name
        self.python = PLACE / f"{name}-python" / "bin" / "python"
        self._real_folders = real_folders

    def refresh(self) -> None:
        """Make the copy what the working tree is now."""
        wanted: dict[str, str] = {}
        for name in listed():
            wanted[name] = name
            if self._real_folders and name.partition("/")[0] in PARTS:
                wanted[f"src/gpuportion/{name}"] = name
        for place, name in wanted.items():
            if not (self._real_folders and place in {f"src/gpuportion/{part}" for part in PARTS}):
                _copy(ROOT / name, self.at / place)
        self._remove_all_but(set(wanted))
        self._make_python()

    def _remove_all_but(self, wanted: set[str]) -> None:
        kept = {str(path.relative_to(self.at)) for path in self.at.rglob("*") if not path.is_dir()}
        for name in kept - wanted:
            if name.endswith((".py", ".c", ".h", ".toml")) and name.partition("/")[0] not in (
                "build",
                "mutants",
            ):
                (self.at / name).unlink()

    def _make_python(self) -> None:
        home = self.python.parents[1]
        if not self.python.exists():
            venv.create(home, symlinks=True, with_pip=False)
        # A folder in a .pth file is searched; .pth files in that folder, as of an editable install, are not read.
        packages = sysconfig.get_path("purelib")
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        (home / "lib" / version / "site-packages" / "mutants.pth").write_text(f"{self.at}/src\n{packages}\n")

    def build(self) -> None:
        """Build what is not up to date, and put it where `gpuportion` looks for it."""
        folder = self.at / BUILD
        if not (folder / "build.ninja").exists():
            where = ["-S", str(self.at), "-B", str(folder), "-G", "Ninja", "-DSKBUILD=ON"]
            self._tool("cmake", *where, f"-DPython_EXECUTABLE={self.python}")
        self._tool("cmake", "--build", str(folder))
        self._tool("cmake", "--install", str(folder), "--prefix", str(self.at / "src"))

    def take_built(self, other: Tree) -> None:
        """The built parts of another copy."""
        for made in (other.at / "src" / "gpuportion").glob("_region*.so"):
            shutil.copy(made, self.at / "src" / "gpuportion" / made.name)

    def environment(self) -> dict[str, str]:
        path = f"{Path(sys.executable).parent}:{os.environ.get('PATH', '/usr/bin:/bin')}"
        kept = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
        # CI: hypothesis then tries the same examples every time; MUTANTS: it does not look for the smallest one.
        own = {"CI": "1", "GPUPORTION_TEST_MUTANTS": "1", "GPUPORTION_TEST_PATIENCE": "10"}
        own["GPUPORTION_TEST_BUILD"] = str(self.at / BUILD)
        return {**kept, **own, "PATH": path}

    def _tool(self, *command: str) -> None:
        done = subprocess.run(
            command,
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode:
            raise CopyError(f"{' '.join(command)}\n{done.stdout[-4000:]}")


def _copy(source: Path, target: Path) -> None:
    """Only where it differs."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_symlink():
        if not target.is_symlink() or os.readlink(target) != os.readlink(source):
            target.unlink(missing_ok=True)
            target.symlink_to(os.readlink(source))
        return
    if not target.is_file() or target.read_bytes() != source.read_bytes():
        shutil.copyfile(source, target)
    if (target.stat().st_mode ^ source.stat().st_mode) & 0o777:
        shutil.copymode(source, target)
