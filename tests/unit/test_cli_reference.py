"""docs/cli.md is what --help says."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpuportion.cli import reference

PAGE = Path(__file__).parents[2] / "docs/cli.md"


def test_the_page_is_what_help_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write it again with `python -m gpuportion.cli.reference > docs/cli.md`."""
    monkeypatch.setenv("COLUMNS", "80")  # reset afterwards: the page sets its own
    assert PAGE.read_text() == reference.text()
