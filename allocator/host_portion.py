"""A portion for a plain process of the host (`gpuportion exec`): private folder, environment, mounts.

    <state dir>/exec/libraries/<stamp>/    our libraries, copied once
    <state dir>/exec/<token>/              0755, the private folder
        libcuda.so.1, libcuda.so           hard links to the copy
        libnvidia-ml.so.1, libnvidia-ml.so
        policy                             a link to the grant's page
        driver/libcuda.so.1, ...           the real driver: links to it, or places to mount it on

Not in /run, which is often mounted noexec. And hard links: the library looks for its policy beside the file
that it was loaded from, by the name that the kernel shows, so each grant needs a name of its own.

Where the caller can make a private mount namespace, our library is mounted over every libcuda and NVML of the
driver, the real ones first moved aside. Knows nothing of grants.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from gpuportion.allocator.injection import Programs
from gpuportion.errors import GpuportionError

CUDA: Final = "libcuda.so"
NVML: Final = "libnvidia-ml.so"
NAMES: Final = (CUDA, NVML)
SELF: Final = "/run/gpuportion/self"
"""Where the library finds the policy in a private mount namespace."""


@dataclass(frozen=True, slots=True)
class Portion:
    """What the caller has to do: `env` to set, `mounts` (source, target) to bind in this order."""

    folder: str
    env: dict[str, str]
    mounts: tuple[tuple[str, str], ...]


class HostPortions:
    """`programs` and `driver` are asked when they are needed: our libraries, and the folder of the real
    ones."""

    def __init__(self, state_dir: str, programs: Callable[[], Programs], driver: Callable[[], str]) -> None:
        self._root = f"{state_dir}/exec"
        self._programs = programs
        self._driver = driver

    def driver_file(self, token: str, name: str) -> str:
        """Where the library of this grant finds the real driver's file."""
        return f"{self._root}/{token}/driver/{name}.1"

    def make(self, token: str, pages: str, mounts: bool) -> Portion:
        """The private folder of a grant whose pages lie in `pages`. GpuportionError GP302 if it cannot be."""
        folder = f"{self._root}/{token}"
        ours = self._programs()
        driver = self._driver()
        real = {name: _real(driver, name) for name in NAMES}
        os.makedirs(f"{folder}/driver", mode=0o755)
        for name, source in ((CUDA, ours.library), (NVML, ours.nvml_library)):
            copy = self._copy(source)
            os.link(copy, f"{folder}/{name}.1")
            os.link(copy, f"{folder}/{name}")
            aside = self.driver_file(token, name)
            if mounts:
                os.close(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644))
            else:
                os.symlink(real[name], aside)
        os.symlink(f"{pages}/policy", f"{folder}/policy")
        env = {"LD_PRELOAD": f"{folder}/{CUDA}.1:{folder}/{NVML}.1", "LD_LIBRARY_PATH": folder}
        return Portion(folder, env, _mounts(folder, pages, driver, real) if mounts else ())

    def remove(self, token: str) -> None:
        shutil.rmtree(f"{self._root}/{token}", ignore_errors=True)

    def tokens(self) -> list[str]:
        """Grants that have a private folder."""
        try:
            return [name for name in os.listdir(self._root) if name != "libraries"]
        except FileNotFoundError:
            return []

    def _copy(self, source: str) -> str:
        """Our copy of a library, of this build of it."""
        status = os.stat(source)
        folder = f"{self._root}/libraries/{status.st_mtime_ns:x}-{status.st_size:x}"
        path = f"{folder}/{os.path.basename(source)}"
        if not os.path.exists(path):
            os.makedirs(folder, mode=0o755, exist_ok=True)
            shutil.copyfile(source, f"{path}.new")
            os.chmod(f"{path}.new", 0o755)
            os.replace(f"{path}.new", path)
        return path


def _mounts(folder: str, pages: str, driver: str, real: dict[str, str]) -> tuple[tuple[str, str], ...]:
    """Aside, then over; the same inode everywhere, or two copies of the library would load."""
    os.makedirs(SELF, mode=0o755, exist_ok=True)
    aside = [(real[name], f"{folder}/driver/{name}.1") for name in NAMES]
    over = [(f"{folder}/{name}.1", path) for name in NAMES for path in _real_files(driver, name)]
    return (*aside, *over, (pages, SELF))


def _real_files(folder: str, name: str) -> Sequence[str]:
    """Every file of the driver that is libcuda (or NVML) by some name, links followed."""
    names = [entry for entry in os.listdir(folder) if entry == name or entry.startswith(f"{name}.")]
    return sorted({os.path.realpath(f"{folder}/{entry}") for entry in names})


def _real(folder: str, name: str) -> str:
    path = f"{folder}/{name}.1"
    if not folder or not os.path.exists(path):
        raise GpuportionError("GP302", why=f"the NVIDIA driver's {name}.1 is not in {folder or 'any folder'}")
    return os.path.realpath(path)
