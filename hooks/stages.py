"""The hook entry that a container's OCI spec gets: a static program in one stage.

`createRuntime` (the specification's successor of prestart) confirms a grant. There is no poststop hook: the
daemon sees the end by the pidfd that confirm brings, and by the launcher's note of `delete`, and a poststop
hook would cost about 3 ms a container, is not run in many of the ways in which containers end, and where
it fails newer runcs leak the container. Id, token and socket are arguments because engines disagree about the
state on stdin; the environment is explicit because an absent one is inherited: from the engine, and in runc
before 1.3 from the image (CVE-2025-23266). Knows nothing of what the daemon does with it.
"""

from __future__ import annotations

import os
from typing import Any, Final

PROGRAM: Final = "gpuportion-hook"
ENV: Final = ("PATH=/usr/sbin:/usr/bin:/sbin:/bin",)
CREATE_RUNTIME: Final = "createRuntime"
TIMEOUT: Final = 60
"""Seconds. confirm waits for the daemon, which its socket unit may have to start."""


def entries(hook: str, *, socket: str, token: str, container: str) -> dict[str, dict[str, Any]]:
    """Stage -> the hook that runs first there. `hook` is the program's host path, `container` the OCI id."""
    args = [PROGRAM, "confirm", "--socket", socket, "--token", token, "--id", container]
    return {CREATE_RUNTIME: {"path": hook, "args": args, "env": list(ENV), "timeout": TIMEOUT}}


def are_run(verb: str, runtime: str) -> bool:
    """Does this low-level runtime (its path; the name tells, as it does the launcher) run them for this verb?

    runc runs createRuntime hooks when it restores a container, crun runs none (libcrun_container_restore).
    """
    return verb != "restore" or "crun" not in os.path.basename(runtime)
