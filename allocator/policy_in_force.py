"""The rules that the daemon keeps to now: read at its start, and again at SIGHUP.

    <run dir>/default-grant     root's; there while the rules give something to those who ask for nothing, so that
                                the launcher asks about every container

A file that is wrong at the start ends the daemon; a later one is said and changes nothing. Knows nothing of what a
rule means.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
from collections.abc import Callable
from typing import Any, Final

from gpuportion.allocator import policy_file, policy_keys
from gpuportion.allocator.policy import Policy
from gpuportion.errors import GpuportionError

log: Final = logging.getLogger("gpuportiond")

FLAG: Final = "default-grant"


class PolicyInForce:
    def __init__(self, path: str, run_dir: str, *, margin: int | None) -> None:
        """Rules of the file at `path`, "" for the usual one; `margin` goes before the file's. GpuportionError if the
        file is wrong."""
        self._path = path or policy_file.PATH
        self._needed = bool(path)
        self._flag = f"{run_dir}/{FLAG}"
        self._margin = margin
        self.trouble = ""
        self.policy = self._read()

    def read_again(self, then: Callable[[Policy], None]) -> None:
        """Take the file as it is now, and tell `then`; one that is wrong leaves the rules as they are."""
        try:
            self.policy = self._read()
        except GpuportionError as problem:
            self.trouble = problem.text
            log.error("%s", problem.text)
            log.error("the running configuration stays as it is")
            return
        self.trouble = ""
        then(self.policy)
        log.info("configuration read again from %s", self._path)

    def shown(self) -> dict[str, Any]:
        """What `gpuportion config show` tells."""
        text = policy_keys.render(policy_keys.written(self.policy))
        return {"source": self._path, "found": self._found, "text": text, "trouble": self.trouble}

    def _read(self) -> Policy:
        self._found = os.path.lexists(self._path)
        found = policy_file.read_trusted(self._path, needed=self._needed)
        try:
            self._mark_default(found)
        except OSError as problem:
            raise GpuportionError("GP306", what=f"marking {self._flag}", why=str(problem.strerror)) from None
        return found if self._margin is None else dataclasses.replace(found, margin=self._margin)

    def _mark_default(self, policy: Policy) -> None:
        if policy.default is None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._flag)
            return
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        os.close(os.open(self._flag, flags, 0o644))
