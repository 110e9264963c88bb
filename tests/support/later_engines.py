"""The container engines of another Debian suite instead of this machine's: GPUPORTION_TEST_ENGINES=FOLDER.

tools/later-engines fills such a folder; `make test-engines` runs the integration tests on each suite's.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import MutableMapping
from typing import Final

PROGRAMS: Final = ("dockerd", "containerd", "podman", "conmon", "runc", "crun")


def folder() -> str | None:
    """Where the programs lie; None: this machine's own are meant."""
    named = os.environ.get("GPUPORTION_TEST_ENGINES")
    return f"{named}/bin" if named else None


def prefer(env: MutableMapping[str, str]) -> None:
    """Make `env` find them first, and our launcher their runc. podman is told of its helpers."""
    if programs := folder():
        env["PATH"] = f"{programs}:{env['PATH']}"
        env["GPUPORTION_RUNTIME"] = f"{programs}/runc"
        env["CONTAINERS_CONF_OVERRIDE"] = f"{os.path.dirname(programs)}/containers.conf"
        env["PODMAN_IGNORE_CGROUPSV1_WARNING"] = "1"


def versions() -> str:
    """Of the programs that will be run, as they say themselves."""
    path = f"{os.environ['PATH']}:/usr/local/sbin:/usr/sbin:/sbin"
    found = {name: shutil.which(name, path=path) for name in PROGRAMS}
    return ", ".join(f"{name} {_version(program)}" for name, program in found.items() if program)


def _version(program: str) -> str:
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
    number = re.search(r"(?<![\w.])v?(\d+\.\d+(\.\d+)?)", said)
    return number[1] if number else "of no version"
