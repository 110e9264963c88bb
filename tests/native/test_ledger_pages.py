"""What a process makes of a ledger or a policy that is none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gpuportion.allocator.pages import Pages
from tests.native.ledger_build import have_compiler
from tests.native.ledger_process import Driver

pytestmark = pytest.mark.skipif(not have_compiler(), reason="needs a C compiler (cc)")


@pytest.mark.parametrize("spoil", ["truncate", "grow", "scribble", "empty"])
def test_what_is_no_ledger_is_not_attached(program: Path, made: Pages, spoil: str) -> None:
    """A process that starts on a damaged ledger is told so, and gets nothing."""
    size = os.stat(made.ledger).st_size
    if spoil == "scribble":
        with open(made.ledger, "r+b") as file:
            file.write(b"\xff" * 4096)
    else:
        os.truncate(made.ledger, {"truncate": 8192, "grow": size + 1, "empty": 0}[spoil])
    driver = Driver(program, made)
    driver.end()
    assert driver.greeting == "ledger: Bad message"


@pytest.mark.parametrize("word", [0, 8, 12, 16, 20], ids=["magic", "version", "gpus", "cells", "lanes"])
def test_every_word_of_a_ledgers_header_counts(program: Path, made: Pages, word: int) -> None:
    """Each says how the rest is read: one that differs is another layout."""
    with open(made.ledger, "r+b") as file:
        file.seek(word)
        byte = file.read(1)
        file.seek(word)
        file.write(bytes([byte[0] ^ 128]))
    driver = Driver(program, made)
    driver.end()
    assert driver.greeting == "ledger: Bad message"


@pytest.mark.parametrize("version", [0, 99])
def test_a_policy_of_another_version_is_said_to_be_one(program: Path, made: Pages, version: int) -> None:
    """It is whole; only we cannot read it."""
    with open(made.policy, "r+b") as file:
        file.seek(8)
        file.write(version.to_bytes(4, "little"))
    driver = Driver(program, made)
    driver.end()
    assert driver.greeting == "policy: Protocol not supported"


def test_a_policy_that_is_none_is_not_taken(program: Path, made: Pages) -> None:
    """Neither a short file nor another magic or version, nor a count of GPUs out of bounds."""
    whole = Path(made.policy).read_bytes()
    for spoilt in (
        b"",
        whole[:100],
        b"x" + whole[1:],
        whole[:12] + b"\xff" + whole[13:],
        whole[:128] + b"x" * 1920,
    ):
        Path(made.policy).write_bytes(spoilt)
        driver = Driver(program, made)
        driver.end()
        assert driver.greeting == "policy: Bad message"
