"""Talks to tests/support/cuda_session.py over pipes, wherever it runs (host, container, `docker exec`)."""

from __future__ import annotations

import json
import subprocess
from types import TracebackType
from typing import Any


class CudaSession:
    """A running CUDA client. `opened` tells how cuInit and its first context went."""

    def __init__(self, command: list[str], env: dict[str, str] | None = None) -> None:
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env
        )
        first = self._read()
        self.opened = first["opened"]
        self.pid = first["pid"]

    def ask(self, *words: object) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        return self._read()

    def alloc(self, size: int) -> str:
        """The name of cuMemAlloc's result."""
        return str(self.ask("alloc", size)["result"])

    def end(self) -> str:
        """Ends the client; what it and the library wrote to stderr."""
        _, errors = self.process.communicate("end\n", timeout=60)
        return errors

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            _, errors = self.process.communicate(timeout=60)
            raise AssertionError(f"the client ended ({self.process.returncode}): {errors}")
        answer = json.loads(line)
        assert isinstance(answer, dict)
        return answer

    def __enter__(self) -> CudaSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


MB = 10**6


def holds_to_1g(client: CudaSession) -> None:
    """The client of a container whose grant is 1 GB: 600 MB are given, 600 MB more refused, and it's said where."""
    assert client.opened == "CUDA_SUCCESS"
    assert client.alloc(600 * MB) == "CUDA_SUCCESS"
    assert client.alloc(600 * MB) == "CUDA_ERROR_OUT_OF_MEMORY"
    assert "GP201" in client.end()
