"""The tables of `make mutants` still fit the tree: a breakage whose text has moved on proves nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from tools.mutants import breakages, mutations, survivors
from tools.mutants.breakages import Breakage

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("one", [pytest.param(one, id=one.name) for one in breakages.load()])
def test_a_breakage_applies_to_one_place_and_names_tests_that_exist(one: Breakage) -> None:
    """Its old text is in its file exactly once; mend tools/mutants/table where it is not."""
    assert breakages.complaint(one, ROOT) == ""


def test_a_text_that_stands_twice_is_no_breakage() -> None:
    """Nobody could say which of the two was meant."""
    one = Breakage("twice", "x.c", "a", "b", ("tests/unit/test_breakages.py",))
    assert one.applied("-a-") == "-b-"
    for text in ("", "a a"):
        with pytest.raises(ValueError, match="not once"):
            one.applied(text)


def test_every_mutated_module_and_its_tests_are_there() -> None:
    """A module that was renamed would be left out unseen."""
    for module, tests in mutations.modules().items():
        assert (ROOT / "src" / "gpuportion" / module).is_file(), module
        for test in tests:
            assert (ROOT / "tests" / "unit" / test).is_file(), test


def test_every_survivor_is_argued() -> None:
    """One line each; `load` refuses an entry without."""
    argued, _ = survivors.load()
    assert len({(one.function, one.old, one.new) for one in argued}) == len(argued)
