"""TOML of our own, and the edit of one array in somebody else's."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuportion.errors import GpuportionError
from gpuportion.shim.engines import toml_text

SOURCE = "/etc/containerd/config.toml"

APPENDED = {  # before -> after, with "/b" for `imports`
    "": 'imports = ["/b"]\n',
    "version = 2\n": 'version = 2\nimports = ["/b"]\n',
    "# mine\nversion = 3 # yes\n[a]\nb = 1\n": '# mine\nversion = 3 # yes\nimports = ["/b"]\n[a]\nb = 1\n',
    "[a]\nversion = 2\n": 'imports = ["/b"]\n[a]\nversion = 2\n',
    "imports = []\n": 'imports = ["/b"]\n',
    "imports = [ '/a' ] # here\n": "imports = [ '/a' , \"/b\"] # here\n",
    'imports = [\n  "/a",\n]\n': 'imports = [\n  "/a",\n"/b"]\n',
    'imports = [\n  "/a" # last\n]\n': 'imports = [\n  "/a" # last\n, "/b"]\n',
    'imports=["/a"]\n': 'imports=["/a", "/b"]\n',
    "imports = [ # none\n]\n": 'imports = [ # none\n"/b"]\n',
    'imports = ["/[x]"] # ]\n': 'imports = ["/[x]", "/b"] # ]\n',
    'a = """\nimports = []\n"""\n': 'imports = ["/b"]\na = """\nimports = []\n"""\n',
    '[a]\nimports = ["/a"]\n': 'imports = ["/b"]\n[a]\nimports = ["/a"]\n',
}


@pytest.mark.parametrize("before", APPENDED)
def test_an_item_is_appended_in_place(before: str) -> None:
    """Comments and layout stay; taken out again, every other value is what it was."""
    after = toml_text.append(before, "imports", "/b", SOURCE)
    assert after == APPENDED[before]
    left = toml_text.parse(toml_text.remove(after, "imports", "/b", SOURCE), SOURCE)
    expected = toml_text.parse(before, SOURCE)
    assert left == {key: value for key, value in expected.items() if (key, value) != ("imports", [])}


REMOVED = {  # before -> after, without "/b"
    'imports = ["/b"]\na = 1\n': "a = 1\n",
    'imports = ["/a", "/b"]\n': 'imports = ["/a"]\n',
    'imports = ["/b", "/a"]\n': 'imports = ["/a"]\n',
    "imports = ['/b', '/a']\n": "imports = ['/a']\n",
    'imports = [\n  "/a",\n  "/b",\n]\n': 'imports = [\n  "/a",\n]\n',
    'imports = ["/a"]\n': 'imports = ["/a"]\n',
    "a = 1\n": "a = 1\n",
}


@pytest.mark.parametrize("before", REMOVED)
def test_an_item_is_removed_in_place(before: str) -> None:
    """An array that held nothing else goes with it."""
    assert toml_text.remove(before, "imports", "/b", SOURCE) == REMOVED[before]


def test_what_cannot_be_edited_is_said() -> None:
    """An array spelt in a way that is not foreseen is left to the user, with what to write."""
    with pytest.raises(GpuportionError, match=r'add "/b" to imports by hand') as refused:
        toml_text.append('"im\\u0070orts" = []\n', "imports", "/b", SOURCE)
    assert refused.value.text.startswith(f"GP307 {SOURCE}, top level: ")
    with pytest.raises(GpuportionError) as refused:
        toml_text.append("a = = 2\n", "imports", "/b", SOURCE)
    assert refused.value.text.startswith(f"GP307 {SOURCE}, line 1, column 5: ")


def test_what_cannot_be_taken_out_is_said() -> None:
    """The same the other way; a file that can't be read is not touched either."""
    with pytest.raises(GpuportionError, match=r'take "/b" out of imports by hand') as refused:
        toml_text.remove('"im\\u0070orts" = ["/b"]\n', "imports", "/b", SOURCE)
    assert refused.value.text.startswith(f"GP307 {SOURCE}, top level: ")
    with pytest.raises(GpuportionError) as refused:
        toml_text.remove("a = = 2\n", "imports", "/b", SOURCE)
    assert refused.value.text.startswith(f"GP307 {SOURCE}, line 1, column 5: ")


def test_a_mistake_is_said_with_its_place() -> None:
    """Line and column, as the parser has them."""
    with pytest.raises(GpuportionError) as refused:
        toml_text.parse("a = 1\nb = = 2\n", SOURCE)
    assert refused.value.text.startswith(f"GP307 {SOURCE}, line 2, column 5: ")
    assert refused.value.text.endswith(". Mend it first.")


def test_a_table_is_written_as_people_write_it() -> None:
    """Names are quoted where they have to be; letters beyond ASCII are themselves."""
    table = {"a-b": True, "c.d": 1, "e": {"f": "ä\U0001f600", "g h": {"i": ["\x7f", 0.5]}}}
    lines = (
        "a-b = true",
        '"c.d" = 1',
        "",
        "[e]",
        'f = "ä\U0001f600"',
        "",
        '[e."g h"]',
        'i = ["\\u007f", 0.5]',
    )
    assert toml_text.write(table) == "".join(f"{line}\n" for line in lines)


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
VALUES = st.recursive(
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(TEXTS, VALUES, max_size=4))
def test_any_table_reads_back_as_written(table: dict[str, Any]) -> None:
    """Names with dots and quotes, empty tables, tables in arrays."""
    assert toml_text.parse(toml_text.write(table), SOURCE) == table
