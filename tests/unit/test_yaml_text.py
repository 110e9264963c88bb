"""YAML to plain objects, with a place for every mistake."""

from __future__ import annotations

import pytest

from gpuportion.allocator import yaml_text
from gpuportion.errors import GpuportionError

GOOD: dict[str, object] = {"": None, "a: [1, 'x']": {"a": [1, "x"]}, "a: 0x10\nb: yes": {"a": 16, "b": True}}
BAD = {
    "a: [1\nb: 2": "line 2, column 2",
    "\ta: 1": "line 1, column 1",
    "a: 1\na b\n": "line 3, column 1",
    "a: !!python/name:os.system x": "line 1, column 4",
    "a: 1\n---\nb: 2": "line 2, column 1",
    "a: \x00": "somewhere",
    "[" * 20_000: "",
}


@pytest.mark.parametrize("text", GOOD)
def test_a_document_becomes_plain_objects(text: str) -> None:
    """Nothing but what YAML's safe schema knows."""
    assert yaml_text.load(text, "x") == GOOD[text]


@pytest.mark.parametrize("text", BAD, ids=range(len(BAD)))
def test_a_mistake_has_a_place(text: str) -> None:
    """One line, with the file's name."""
    with pytest.raises(GpuportionError) as refusal:
        yaml_text.load(text, "/etc/x.yaml")
    assert refusal.value.text.startswith(f"GP307 /etc/x.yaml, {BAD[text]}") and "\n" not in refusal.value.text
