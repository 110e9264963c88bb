"""Runs tests/simgpu/nvml_client.py: a process that keeps its session with NVML, as a daemon does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from gpuportion.simgpu import Sim

CLIENT: Final = Path(__file__).with_name("nvml_client.py")


class Refused(Exception):
    """An NVMLError, by its name without the prefix: `InUse`."""


class Nvml:
    def __init__(self, sim: Sim, *, env: Mapping[str, str] | None = None, wrap: Sequence[str] = ()) -> None:
        self.process = subprocess.Popen(
            [*wrap, sys.executable, str(CLIENT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **sim.env(), **(env or {})},
        )

    def ask(self, expression: str) -> Any:
        """The value of an expression; Refused if it is an NVMLError."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(expression + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, f"the client ended ({self.process.wait(60)})"
        said = json.loads(line)
        if "error" in said:
            raise Refused(said["error"])
        return said["value"]

    def refusal(self, expression: str) -> str:
        """The name of the NVMLError that an expression is."""
        try:
            value = self.ask(expression)
        except Refused as refused:
            return str(refused)
        raise AssertionError(f"{expression} was not refused: {value}")

    def __enter__(self) -> Nvml:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.communicate(timeout=60)
