"""The container engines of another Debian suite instead of this machine's: GPUPORTION_TEST_ENGINES=FOLDER.

tools/later-engines fills such a folder; `make test-engines` runs the integration tests on each suite's.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping


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
