"""A program of the suite that says lines of JSON and waits to be told to go on: what it says, and when to look."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Final

PATIENCE: Final = 60.0


class EndedError(Exception):
    """The program has ended where it was to say something; the text is what it wrote to stderr."""


class Session:
    """For the length of a `with`; a program that is left running then is killed."""

    def __init__(self, command: Sequence[str], env: dict[str, str], errors: str) -> None:
        """`errors`: a file for its stderr."""
        self._errors = errors
        with open(errors, "w") as stderr:
            self.process = subprocess.Popen(
                command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    def hear(self) -> dict[str, Any]:
        """The next thing it says."""
        assert self.process.stdout
        while line := self.process.stdout.readline():
            if line.startswith("{"):
                said: dict[str, Any] = json.loads(line)
                return said
        raise EndedError(f"status {self.process.wait(PATIENCE)}: {self.errors()[-1500:]}")

    def go_on(self, word: str = "") -> None:
        assert self.process.stdin
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()

    def errors(self) -> str:
        with open(self._errors, errors="replace") as file:
            return file.read()

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()

    def end(self) -> int:
        """Lets it come to its end; its status."""
        self.process.communicate(timeout=PATIENCE)
        return self.process.returncode

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.kill()
