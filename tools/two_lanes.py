"""Runs the tests in two lanes at once: two cores are done sooner so.

One lane begins with what mostly waits (containers and their engines), the other with what mostly computes; whichever is
through takes from the tests of the daemon, in parts, until there are none. A part is a pytest of its own. What starts
engines, or looks at all engines and demos of this host, stays together: it would see others at work. The second lane's
output follows the first's. Options go to all; with a path or name among them, which then says what to run, there is one
lane. Not by a shell's "&": it would let the tests, and all that they start, ignore SIGINT."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Final

ROOT: Final = Path(__file__).parents[1]
WAITING: Final = ("tests/gpu", "tests/integration")
DAEMON: Final = "tests/daemon"
WITH_ENGINES: Final = tuple(
    f"{DAEMON}/test_cli_{name}.py" for name in ("demo", "doctor", "install", "private_dockerd")
)
PARTS: Final = 6
"""Of the daemon's tests: the fewer, the longer a lane may wait for the other; each costs the start of a pytest."""

NOTHING: Final = 5
"""pytest's status where no test was selected: by `-k`, in most parts."""

Words = tuple[str, ...]


def parts(files: Sequence[str]) -> list[Words]:
    """The daemon's tests that may run beside any others."""
    free = [file for file in sorted(files) if file not in WITH_ENGINES]
    return [tuple(free[number::PARTS]) for number in range(min(PARTS, len(free)))]


def first_jobs() -> tuple[Words, Words]:
    """What each lane begins with."""
    apart = (DAEMON, *WAITING)
    return (*WITH_ENGINES, *WAITING), ("tests", *(f"--ignore={folder}" for folder in apart))


def main() -> int:
    options = sys.argv[1:]
    if any(word.startswith("tests") for word in options):
        return _pytest(options)
    files = [str(path.relative_to(ROOT)) for path in (ROOT / DAEMON).glob("test_*.py")]
    waiting, computing = first_jobs()
    left = deque(parts(files))
    with tempfile.TemporaryFile() as said, ThreadPoolExecutor(1) as other:
        second = other.submit(_lane, computing, left, options, said)
        try:
            statuses = _lane(waiting, left, options)
        finally:
            left.clear()  # interrupted: the other lane ends with what it is about
        statuses += second.result()
        said.seek(0)
        sys.stdout.flush()
        sys.stdout.buffer.write(said.read())
    return together(statuses)


def _lane(job: Words, left: deque[Words], options: Sequence[str], out: IO[bytes] | None = None) -> list[int]:
    """The statuses of this job, and of those of `left` that nobody has taken before."""
    statuses = [_pytest([*job, *options], out)]
    while left:
        try:
            job = left.popleft()
        except IndexError:
            break
        statuses.append(_pytest([*job, *options], out))
    return statuses


def _pytest(words: Sequence[str], out: IO[bytes] | None = None) -> int:
    return subprocess.call([sys.executable, "-m", "pytest", *words], stdout=out, stderr=out)


def together(statuses: Sequence[int]) -> int:
    """The first that is bad; parts without a test are good if others had some."""
    return next((status for status in statuses if status not in (0, NOTHING)), min(statuses))


if __name__ == "__main__":
    sys.exit(main())
