"""A process that accounts, asked by words (ledger_driver.c)."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Final

from gpuportion.allocator import pages
from gpuportion.allocator.pages import Pages

MIB: Final = 1 << 20
LIMIT: Final = 1000 * MIB
UUIDS: Final = (bytes(range(16)), bytes(range(16, 32)))


class Driver:
    """A process that accounts, asked by words (ledger_driver.c)."""

    def __init__(self, program: Path, made: Pages) -> None:
        command = [str(program), made.ledger, made.policy]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.children: list[int] = []
        self.greeting = self.line()

    def line(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().strip()

    def tell(self, word: str, amount: int = 0, gpu: int = 0) -> str:
        assert self.process.stdin
        self.process.stdin.write(f"{word} {gpu} {amount}\n")
        self.process.stdin.flush()
        return self.line()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def end(self) -> None:
        for child in self.children:
            os.kill(child, signal.SIGKILL)
        self.kill()
        for stream in (self.process.stdin, self.process.stdout):
            if stream:
                stream.close()


def used(made: Pages, gpu: int = 0) -> int:
    """What the ledger says is in use on the grant's GPU of this number."""
    return pages.read_ledger(made.ledger).gpus[gpu].used


Start = Callable[[], Driver]
"""Starts one more, on the same ledger; they end with the test."""
