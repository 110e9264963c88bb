"""The hook entries that a container's OCI spec gets: one static program, two stages.

`createRuntime` (the specification's successor of prestart) confirms a grant, `poststop` hints that it may
have ended. Id, token and socket are arguments because engines disagree about the state on stdin; the
environment is explicit because an absent one is inherited: from the engine, and in runc before 1.3 from the
image (CVE-2025-23266). Knows nothing of what the daemon does with either.
"""

from __future__ import annotations

from typing import Any, Final

PROGRAM: Final = "gpuportion-hook"
ENV: Final = ("PATH=/usr/sbin:/usr/bin:/sbin:/bin",)
CREATE_RUNTIME: Final = "createRuntime"
POSTSTOP: Final = "poststop"
TIMEOUTS: Final = {CREATE_RUNTIME: 60, POSTSTOP: 10}
"""Seconds. confirm waits for the daemon, which its socket unit may have to start; poststop is only a hint."""


def entries(hook: str, *, socket: str, token: str, container: str) -> dict[str, dict[str, Any]]:
    """Stage -> the hook that runs first there. `hook` is the program's host path, `container` the OCI id."""
    args = {
        CREATE_RUNTIME: [PROGRAM, "confirm", "--socket", socket, "--token", token, "--id", container],
        POSTSTOP: [PROGRAM, "stopped", "--socket", socket, "--token", token],
    }
    return {
        stage: {"path": hook, "args": args[stage], "env": list(ENV), "timeout": TIMEOUTS[stage]}
        for stage in args
    }
