"""Members go into and out of a JSON text; every other byte stays."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuportion.errors import GpuportionError
from gpuportion.shim.engines import json_text

PATH = ("runtimes", "gpuportion")
ENTRY = {"path": "/opt/gpuportion-runtime"}

LINES = """{
    "runtimes": {
        "gpuportion": {
            "path": "/opt/gpuportion-runtime"
        }
    }
}"""
LINE = '"gpuportion": {"path": "/opt/gpuportion-runtime"}'
PUT = {
    "{}": LINES,
    "{\n}": LINES,
    '{\n"a":1,"b":2}': LINES.replace("{", '{\n"a":1,"b":2,', 1).removesuffix("\n}") + "}",
    '{"a":1,"b":2}': '{"a":1,"b":2, "runtimes": {' + LINE + "}}",
    LINES.replace('"/opt', '"/old'): LINES,
    '{\n  "a": 1.0\n}\n': LINES.replace("    ", "  ").replace("{", '{\n  "a": 1.0,', 1) + "\n",
    '{\n\t"runtimes": {\n\t\t"x": {"path":"y"}\n\t}}': (
        '{\n\t"runtimes": {\n\t\t"x": {"path":"y"},\n\t\t"gpuportion": '
        '{\n\t\t\t"path": "/opt/gpuportion-runtime"\n\t\t}\n\t}}'
    ),
    '{"a": "}{"}': '{"a": "}{", "runtimes": {' + LINE + "}}",
    '{"runtimes": {"gpuportion": 7}, "z": [1,2]}': '{"runtimes": {' + LINE + '}, "z": [1,2]}',
    '{"runtimes": {}}': '{"runtimes": {' + LINE + "}}",
    '{"runtimes": {"a": {}}}\n': '{"runtimes": {"a": {}, ' + LINE + "}}\n",
}


@pytest.mark.parametrize(("before", "after"), PUT.items())
def test_a_member_goes_in_as_the_rest_is_written(before: str, after: str) -> None:
    """Its indentation is the file's own; the other bytes are not touched."""
    assert json_text.put(before, PATH, ENTRY) == after


def test_a_text_stays_readable() -> None:
    """Letters beyond ASCII are written as themselves."""
    assert json_text.put('{"a": 1}', ("b",), "/ä") == '{"a": 1, "b": "/ä"}'
    assert json_text.put('{\n "a": 1\n}', ("b",), "/ä") == '{\n "a": 1,\n "b": "/ä"\n}'


CUT = {
    '{"runtimes": {"gpuportion": 1}}': '{"runtimes": {}}',
    '{"runtimes": {"a": 1, "gpuportion": 1}}': '{"runtimes": {"a": 1}}',
    '{"runtimes": {"gpuportion": 1, "a": 1}}': '{"runtimes": {"a": 1}}',
    '{"runtimes": {"a": 1, "gpuportion": {"x": "}"} , "b": 2}}': '{"runtimes": {"a": 1, "b": 2}}',
    '{"a":1,"runtimes":{"b":1,"gpuportion":1}}': '{"a":1,"runtimes":{"b":1}}',
    '{"runtimes": {"a": 1}}': '{"runtimes": {"a": 1}}',
    '{"runtimes": []}': '{"runtimes": []}',
    '{"other": {"gpuportion": 1}}': '{"other": {"gpuportion": 1}}',
    "{}": "{}",
}


@pytest.mark.parametrize(("before", "after"), CUT.items())
def test_a_member_goes_out_with_its_comma(before: str, after: str) -> None:
    """Where there is none, nothing happens."""
    assert json_text.cut(before, PATH) == after


POSITIONS = {
    ('{"a": {"b": 1}}', "a", "b"): "line 1, column 13",
    ('{\n  "a": {\n    "b": 1}}', "a", "b"): "line 3, column 10",
    ('\n {"a": 1}', "a"): "line 2, column 8",
    ('\n{"a":\n1}', "a"): "line 3, column 1",
    ('{"a": {"x": 1}}', "a", "b"): "line 1, column 7",
    (' {"x": 1}', "a"): "line 1, column 2",
}


@pytest.mark.parametrize("case", POSITIONS)
def test_a_place_is_told_as_editors_count(case: tuple[str, ...]) -> None:
    """From 1; where there is no such member, what would hold it."""
    text, *path = case
    assert json_text.position(text, path) == POSITIONS[case]


BROKEN = {
    '{\n  "a": 1,\n}': ("line 3, column 1", "property name"),
    '{"a" 1}': ("line 1, column 6", "':' delimiter"),
    "": ("line 1, column 1", "Expecting value"),
    "[]": ("line 1", "it is not a JSON object"),
    '{"a": 1, "b": {"w": 0, "x": 1, "x": 2}}': ("somewhere", 'the key "x" stands twice'),
    "[" * 100_000: ("somewhere", "Mend it first"),
}


@pytest.mark.parametrize("text", BROKEN, ids=range(len(BROKEN)))
def test_a_broken_document_is_refused_with_its_place(text: str) -> None:
    """An administrator's mistake is shown, never overwritten."""
    where, why = BROKEN[text]
    with pytest.raises(GpuportionError) as refusal:
        json_text.check(text, "/etc/docker/daemon.json")
    assert (
        refusal.value.text.startswith(f"GP307 /etc/docker/daemon.json, {where}: ")
        and why in refusal.value.text
    )


def test_a_value_has_a_place() -> None:
    """For messages about what is valid JSON and still wrong."""
    text = '{\n  "a": 1,\n  "runtimes": {\n    "gpuportion": 3\n  }\n}'
    assert json_text.position(text, ("runtimes",)) == "line 3, column 15"
    assert json_text.position(text, PATH) == "line 4, column 19"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.text(max_size=4) | st.sampled_from(["runtimes", "default-runtime"])
DOCUMENTS = st.dictionaries(KEYS, VALUES, max_size=5)
INDENTS = st.sampled_from([None, 0, 1, 4, "\t"])


def written(document: dict[str, Any], indent: int | str | None, plain: bool) -> str:
    return json.dumps(document, indent=indent, ensure_ascii=plain)


@given(DOCUMENTS, INDENTS, st.booleans(), st.text("key", min_size=1))
def test_what_went_in_comes_out_again(
    document: dict[str, Any], indent: int | str | None, plain: bool, key: str
) -> None:
    """put then cut gives the same bytes back; between them the others parse as before."""
    document.pop(key, None)
    text = written(document, indent, plain)
    grown = json_text.put(text, (key,), ENTRY)
    assert json.loads(grown) == {**document, key: ENTRY}
    assert list(json.loads(grown)) == [*document, key]
    assert json_text.cut(grown, (key,)) == text


@given(DOCUMENTS, INDENTS, st.booleans())
def test_any_member_can_be_replaced_or_taken_out(
    document: dict[str, Any], indent: int | str | None, plain: bool
) -> None:
    """At any place, with any neighbours."""
    text = written(document, indent, plain)
    for key in document:
        rest = {other: value for other, value in document.items() if other != key}
        assert json.loads(json_text.cut(text, (key,))) == rest
        assert json.loads(json_text.put(text, (key,), ENTRY)) == {**document, key: ENTRY}
