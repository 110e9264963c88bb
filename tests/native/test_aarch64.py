"""The C parts built for aarch64, and their own tests run there by qemu-user (tests/support/emulation.py).

Each row is a file of tests, run whole in a pytest of its own but for what an emulator cannot show. `make test` runs
those that look at the files and the heart of each part, GPUPORTION_TEST_LONG=1 all.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass

import pytest

from tests.support import emulation
from tests.support.native import ROOT

LONG = os.environ.get("GPUPORTION_TEST_LONG") == "1"

SANITIZED = ("sanitized", "sanitizers")  # under qemu their shadow memory finds no place
FORKS = ("forked_child", "cannot_give_back_its_parents")  # qemu 7.2 does not wipe what it says it wipes
EMULATED = ("makes_no_system_call", "full_table")  # qemu makes system calls of its own; 257 of it are slow
NAMED = ("dead_leave_theirs",)  # by qemu's name
BY_PYTHON = ("interface_that_was_asked_for", "other_copy_is_loaded", "notices_nothing")  # this machine's

LEDGERS = ("test_ledger_deaths.py", "test_ledger_kept.py", "test_ledger_pages.py")


@dataclass(frozen=True)
class Row:
    """`part`: what `make test` runs of it; empty: nothing. `without`: parts of names. `beside`: files run with it."""

    file: str
    part: str = ""
    without: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()

    def expression(self) -> str:
        """For pytest's -k."""
        left_out = [f"not {word}" for word in (*SANITIZED, *self.without)]
        return " and ".join([*([f"({self.part})"] if self.part and not LONG else []), *left_out])


ROWS = (
    Row("test_symbols.py", "cap or symbol"),
    Row("test_ledger.py", "grant or policy or killed", (*FORKS, *EMULATED), LEDGERS),
    Row("test_ledger_unseen.py"),
    Row("test_libcap_mem.py", "cap_holds or every_path or direct_link", (*NAMED, *BY_PYTHON)),
    Row("test_launcher.py", "version or nothing or delete"),
    Row("test_launcher_argv.py"),
    Row("test_launcher_json.py"),
    Row("test_hook.py", "confirm_passes or refused"),
)


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("row", [row for row in ROWS if LONG or row.part], ids=lambda row: row.file)
def test_it_does_on_aarch64_what_it_does_here(row: Row) -> None:
    """As its own tests say."""
    if missing := emulation.missing():
        pytest.skip(f"needs {missing}")
    # An emulator that keeps a record of each page shall not eat the machine.
    words = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-k", row.expression()]
    files = [str(ROOT / "tests" / "native" / name) for name in (row.file, *row.beside)]
    done = subprocess.run(
        ["prlimit", f"--as={64 << 30}", *words, *files],
        cwd=ROOT,
        env={**os.environ, "GPUPORTION_TEST_ARCH": "aarch64"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
