"""Runs the tests in two lanes at once: those that mostly wait (daemons, containers), and those that mostly compute.

Two cores are done sooner so. The second lane's output follows the first's. Options go to both; with a path or name
among them, which then says what to run, there is one lane. Not by a shell's "&": it would let the tests, and all that
they start, ignore SIGINT."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from typing import Final

WAITING: Final = ("tests/daemon", "tests/gpu", "tests/integration")


def main() -> int:
    options = sys.argv[1:]
    pytest = [sys.executable, "-m", "pytest"]
    if any(word.startswith("tests") for word in options):
        return subprocess.call([*pytest, *options])
    others = ["tests", *(f"--ignore={folder}" for folder in WAITING)]
    with (
        tempfile.TemporaryFile() as said,
        subprocess.Popen([*pytest, *others, *options], stdout=said, stderr=said) as computing,
    ):
        first = subprocess.call([*pytest, *WAITING, *options])
        second = computing.wait()
        said.seek(0)
        sys.stdout.flush()
        sys.stdout.buffer.write(said.read())
    return first or second


if __name__ == "__main__":
    sys.exit(main())
