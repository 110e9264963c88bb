"""Tables for terminals."""

from __future__ import annotations

import pytest

from gpuportion.cli import table


def test_columns_are_as_wide_as_their_widest_cell_and_numbers_end_together() -> None:
    """Text begins, numbers end in line; a missing or empty value is a dash; no line ends in blanks."""
    rows = [{"NAME": "a", "USED": "5 MiB"}, {"NAME": "longer", "USED": "1234 MiB", "NOTE": ""}]
    assert table.render(["NAME", "USED", "NOTE"], rows, right=["USED"]).splitlines() == [
        "NAME        USED  NOTE",
        "a          5 MiB  -",
        "longer  1234 MiB  -",
    ]


def test_a_table_without_rows_is_its_heading() -> None:
    """So that a script sees the columns even when nothing is granted."""
    assert table.render(["A", "B"], []) == "A  B"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (0.4, "0s"), (59.9, "59s"), (60, "1m"), (3599, "59m"), (7200, "2h"), (86_400 * 3 + 5, "3d")],
)
def test_an_age_has_one_unit(seconds: float, text: str) -> None:
    """The largest that it fills at least once."""
    assert table.age(seconds) == text


def test_a_hostile_name_cannot_steer_the_terminal() -> None:
    """Names come from images and users."""
    assert table.printable("a\x1b[2J\nb\u202e") == "a?[2J?b?"
