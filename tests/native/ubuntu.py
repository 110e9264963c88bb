"""Ubuntu's packages, fetched as Debian's are (debian.py): systems older than Debian still has, and later drivers.

Both where the archive is and whose signature counts come from Debian: debootstrap's script knows the one, the package
ubuntu-keyring is the other. GPUPORTION_TEST_UBUNTU names another mirror.
"""

from __future__ import annotations

import functools
import os
import re
from pathlib import Path

from tests.native import debian
from tests.native.debian import Archive, UnavailableError

SCRIPT = "usr/share/debootstrap/scripts/gutsy"  # Ubuntu's: later suites are links to it
KEYRING = "usr/share/keyrings/ubuntu-archive-keyring.gpg"
# In the script, of the suites that are served still.
ADDRESS = re.compile(r"amd64\|i386\)\s+default_mirror (\S+)")


def archive() -> Archive:
    """Ubuntu's own, or the mirror that was named."""
    root = debian.unpacked("ubuntu-archive", "trixie", "main", "ubuntu-keyring", "debootstrap")
    found = ADDRESS.search((root / SCRIPT).read_text(encoding="utf-8"))
    address = os.environ.get("GPUPORTION_TEST_UBUNTU") or (found and found[1])
    if not address:
        raise UnavailableError("debootstrap knows no archive of Ubuntu; GPUPORTION_TEST_UBUNTU may name one")
    return Archive(address, root / KEYRING)


def unpacked(name: str, suite: str, component: str, *packages: str) -> Path:
    """The root folder in which these packages lie."""
    return debian.unpacked(name, suite, component, *packages, archive=archive)


system = functools.partial(debian.system, archive=archive)
"""A root folder that programs can run in."""
