"""Asks the C parsers (tests/native/parsers.c) from Python."""

from __future__ import annotations

import os
import struct
import subprocess

from tests.support import native


class Parsers:
    """One running process; a crash of it fails the test that asked."""

    def __init__(self, target: str) -> None:
        self._process = subprocess.Popen(
            [native.built(target, "shim")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **native.SANITIZER_ENV},
        )

    def ask(self, *fields: str | bytes) -> tuple[bool, bytes]:
        """(good, what it said) for one case; see parsers.c."""
        raw = [field.encode() if isinstance(field, str) else field for field in fields]
        assert self._process.stdin is not None
        self._process.stdin.write(
            struct.pack("<I", len(raw)) + b"".join(struct.pack("<I", len(field)) + field for field in raw)
        )
        self._process.stdin.flush()
        answer = self._read(struct.unpack("<I", self._read(4))[0])
        return answer[:1] == b"+", answer[1:]

    def _read(self, n: int) -> bytes:
        assert self._process.stdout is not None
        got = self._process.stdout.read(n)
        assert len(got) == n, f"the parsers ended with {self._process.wait()}"
        return got

    def end(self) -> None:
        self._process.communicate(timeout=30)
