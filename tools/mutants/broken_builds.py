"""Applies one breakage to the private copy, builds what it changed, and runs the tests that must go red.

The tests run in namespaces of their own where that is possible (root): what a broken product leaves mounted or
running ends with them. A breakage that does not build, or whose tests fail without it, is an error of the table.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from typing import Final

from tools.mutants.breakages import Breakage
from tools.mutants.private_tree import CopyError, Tree

PATIENCE: Final = 120.0
"""Seconds for the tests of one breakage: a product that hangs is caught, too."""

UNBUILT: Final = re.compile(r"\.[chS]:\d+:\d+: error: |ld returned 1 exit status")
"""What a compiler says, where a test built something: such a breakage shows nothing."""

TAIL: Final = 3000

APART: Final = (
    *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"),
    # Process 1 there is a shell: signals and parents of the tests are as everywhere.
    *("sh", "-c", '"$@"; exit $?', "sh"),
)


class Outcome(str, Enum):
    KILLED = "killed"
    SURVIVED = "survived"
    ERROR = "error"


@dataclass(frozen=True)
class Result:
    name: str
    outcome: Outcome
    seconds: float
    detail: str = ""


def try_one(tree: Tree, one: Breakage) -> Result:
    """What the tests say to one breakage. The copy is whole again afterwards, but for its build."""
    began = time.monotonic()
    try:
        with _broken(tree, one):
            outcome, detail = _run_red(tree, one)
    except (CopyError, ValueError, OSError) as problem:
        outcome, detail = Outcome.ERROR, str(problem)
    return Result(one.name, outcome, time.monotonic() - began, detail)


def unbroken(tree: Tree, all_of_them: Sequence[Breakage]) -> str:
    """What fails of their tests without any breakage; an empty string: nothing."""
    status, output = _pytest(tree, sorted({test for one in all_of_them for test in one.red}), patience=900)
    return "" if status == 0 else f"pytest ended with {status}\n{output[-TAIL:]}"


def _run_red(tree: Tree, one: Breakage) -> tuple[Outcome, str]:
    status, output = _pytest(tree, [*one.red, "-x", "--timeout=40"], PATIENCE)
    if status is None:
        return Outcome.KILLED, "did not end"
    if UNBUILT.search(output):
        return Outcome.ERROR, output[-TAIL:]
    if status == 1:
        return Outcome.KILLED, ""
    return (Outcome.SURVIVED if status == 0 else Outcome.ERROR), output[-TAIL:]


@contextmanager
def _broken(tree: Tree, one: Breakage) -> Iterator[None]:
    file = tree.at / one.file
    whole = file.read_text()
    file.write_text(one.applied(whole))
    try:
        if _is_installed(one):
            tree.build()
        yield
    finally:
        file.write_text(whole)
        if _is_installed(one):
            tree.build()


def _is_installed(one: Breakage) -> bool:
    """Does a test meet it in what `gpuportion` has beside it? Those in tests/native build what they need."""
    return not one.file.endswith(".py") and not all(test.startswith("tests/native/") for test in one.red)


def _pytest(tree: Tree, arguments: Sequence[str], patience: float) -> tuple[int | None, str]:
    """Exit status (None: it took too long) and output."""
    folder = tempfile.mkdtemp(
        prefix="pytest-mutants-"
    )  # tests open pytest's folders to other users, and no others
    command = [str(tree.python), "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--basetemp={folder}/t"]
    apart = APART if os.geteuid() == 0 and shutil.which("unshare") else ()
    process = subprocess.Popen(
        [*apart, *command, *arguments],
        cwd=tree.at,
        env=tree.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=patience)
        return process.returncode, output
    except subprocess.TimeoutExpired:
        return None, ""
    finally:
        _end(process)
        shutil.rmtree(folder, ignore_errors=True)


def _end(process: subprocess.Popen[str]) -> None:
    """All of its session; what was killed already is no concern."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
