"""Every message that a user may meet is explained, and reads as the contract says."""

from __future__ import annotations

import re
import string
from pathlib import Path
from typing import Any

import pytest

from gpuportion.errors import TEMPLATES, GpuportionError

DOCUMENT = Path(__file__).parents[2] / "docs/messages.md"
SHELL_SENSITIVE = ("permission denied", "no such file or directory", "executable file not found")
"""Phrases by which docker picks another exit code than 125."""


def filled(code: str) -> GpuportionError:
    names = {name for _, name, _, _ in string.Formatter().parse(TEMPLATES[code]) if name}
    values: dict[str, Any] = {name: f"<{name}>" for name in names}
    return GpuportionError(code, **values)


def test_each_code_has_one_paragraph() -> None:
    """docs/messages.md explains exactly the codes that there are, in their order."""
    sections = re.split(r"^## ", DOCUMENT.read_text(), flags=re.MULTILINE)[1:]
    assert [section.split("\n")[0] for section in sections] == sorted(TEMPLATES)
    for section in sections:
        assert len(section.split("\n", 1)[1].split()) > 10, f"{section.split()[0]} is not explained"


@pytest.mark.parametrize("code", TEMPLATES)
def test_a_message_begins_with_its_code(code: str) -> None:
    """The code is what users search for, and what a program may read."""
    error = filled(code)
    assert error.text.startswith(f"{code} ") and error.code == code and error.exit_status == 1


@pytest.mark.parametrize("code", TEMPLATES)
def test_no_sentence_changes_dockers_exit_code(code: str) -> None:
    """docker takes some phrases of a runtime's message for its own errors."""
    assert not any(phrase in TEMPLATES[code].lower() for phrase in SHELL_SENSITIVE)


def test_the_sentence_about_units_is_that_of_the_contract() -> None:
    """Word for word: tests, documentation and users quote it."""
    problem = "4000 has no unit. Write 4000M, 4G or 4Gi."
    text = GpuportionError("GP102", key="GPU_MEMORY_LIMIT", problem=problem).text
    assert text == "GP102 GPU_MEMORY_LIMIT=4000 has no unit. Write 4000M, 4G or 4Gi."
