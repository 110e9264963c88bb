"""The C programs' JSON: what they read is compared with Python's json, what they write is read by it."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from tests.support.parsers import Parsers

TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)


def escaped(text: str, which: list[bool]) -> str:
    """JSON of `text` with escapes where a writer needs none."""
    units = text.encode("utf-16-be")
    out = ""
    for i in range(0, len(units), 2):
        unit = units[i] << 8 | units[i + 1]
        plain = 0x20 <= unit < 0x7F and unit not in (0x22, 0x5C)
        out += chr(unit) if plain and not which[i // 2 % len(which)] else f"\\u{unit:04x}"
    return f'"{out}"'


@settings(max_examples=300)
@given(VALUES, st.booleans(), st.sampled_from([None, 0, 2]))
def test_every_json_value_is_stepped_over(
    parsers: Parsers, value: Any, ascii_only: bool, indent: int | None
) -> None:
    """What Python writes, compact or indented, is one whole document here."""
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    assert parsers.ask("raw", text) == (True, text.strip().encode())


@settings(max_examples=500)
@given(VALUES, st.data())
def test_a_damaged_text_is_refused_where_python_refuses_it(
    parsers: Parsers, value: Any, data: st.DataObject
) -> None:
    """A byte is lost, doubled or replaced: accepted only if Python accepts it."""
    text = bytearray(json.dumps(value).encode())
    assume(text)
    at = data.draw(st.integers(0, len(text) - 1))
    text[at : at + 1] = data.draw(
        st.sampled_from([b"", b"{", b'"', b"\\", b",", b"0", b"\n", b"-", b"e", b"\x00"])
    )
    try:
        json.loads(bytes(text), parse_constant=float_constant)
        python = True
    except ValueError:
        python = False
    assert parsers.ask("raw", bytes(text))[0] == python


def float_constant(name: str) -> float:
    """NaN and Infinity are Python's own; they are no JSON."""
    raise ValueError(name)


@settings(max_examples=300)
@given(TEXT, TEXT, VALUES, st.lists(st.booleans(), min_size=1, max_size=5))
def test_a_member_is_found_however_it_is_written(
    parsers: Parsers, name: str, text: str, other: Any, which: list[bool]
) -> None:
    """Escapes in its name or its text, other members around it, the same name twice: the last one counts."""
    assume("\0" not in name + text)
    body = ", ".join(
        [
            f'"x": {json.dumps(other)}',
            f"{escaped(name, which)}: 1",
            f"{escaped(name, which)} :{escaped(text, which)}",
            f'"{"y" * 30}": {json.dumps(other)}',
        ]
    )
    assume(name not in ("x", "y" * 30))
    assert parsers.ask("string", f'{{"root": {{{body}}}}}', "root", name) == (True, text.encode())


@pytest.mark.parametrize(
    "text,answer",
    [
        ('{"a": 7}', b"7"),
        ('{"a": -7 }', b"-7"),
        ('{"a": 0}', b"0"),
        ('{"a": 999999999999999999}', b"999999999999999999"),
        ('{"a": 9999999999999999999}', None),
        ('{"a": 7.5}', None),
        ('{"a": 7e1}', None),
        ('{"a": "7"}', None),
        ('{"a": null}', None),
        ('{"a": 07}', None),
        ('{"a": }', None),
        ('{"b": 7}', None),
        ('["a", 7]', None),
        ('{"a": 7} x', None),
    ],
)
def test_an_integer_is_an_integer(parsers: Parsers, text: str, answer: bytes | None) -> None:
    """Only whole numbers that fit are taken."""
    assert parsers.ask("integer", text, "a")[0] == (answer is not None)
    if answer is not None:
        assert parsers.ask("integer", text, "a") == (True, answer)


def test_nesting_has_a_bound(parsers: Parsers) -> None:
    """A hostile depth is refused; it does not end the program."""
    assert parsers.ask("raw", "[" * 400 + "]" * 400)[0]
    assert not parsers.ask("raw", "[" * 2_000_000)[0]
    assert not parsers.ask("raw", '{"a":' * 100_000 + "1" + "}" * 100_000)[0]


def test_a_path_with_a_zero_byte_is_no_path(parsers: Parsers) -> None:
    """It would be cut where C ends a string."""
    assert not parsers.ask("string", '{"a": "/x\\u0000/y"}', "a")[0]


@settings(max_examples=300)
@given(st.binary(max_size=40) | TEXT.map(str.encode))
@example(b"\xc0\x80")  # too long a form of U+0000, U+0800, U+10000
@example(b"\xe0\x80\x80")
@example(b"\xf0\x80\x80\x80")
@example(b"\xed\xa0\x80")  # half a surrogate pair
@example(b"\xf4\x90\x80\x80")  # above U+10FFFF
@example(b"GPU \xe2\x82")  # cut
def test_whatever_is_quoted_reads_back(parsers: Parsers, raw: bytes) -> None:
    """Valid text comes back as it was; bytes that are no UTF-8 become U+FFFD."""
    _, quoted = parsers.ask("quote", raw)
    back = json.loads(quoted.decode())
    try:
        assert back == raw.decode()
    except UnicodeDecodeError:
        assert "\ufffd" in back


@settings(max_examples=200)
@given(st.integers(0, 4_102_444_800), TEXT)
def test_a_log_line_is_one_json_object_with_an_rfc3339_time(parsers: Parsers, at: int, text: str) -> None:
    """containerd reads the file as a stream of objects, and any other time breaks it."""
    _, line = parsers.ask("log-line", "json", text, str(at))
    assert line.endswith(b"}\n") and line.count(b"\n") == 1
    entry = json.loads(line)
    assert entry == {"level": "error", "msg": text, "time": entry["time"]}
    assert datetime.fromisoformat(entry["time"].replace("Z", "+00:00")) == datetime.fromtimestamp(
        at, timezone.utc
    )


def test_a_log_of_text_is_written_as_runc_writes_it(parsers: Parsers) -> None:
    """key=value pairs, one line."""
    _, line = parsers.ask("log-line", "text", 'two\nlines "quoted"', "0")
    assert line == b'time="1970-01-01T00:00:00Z" level=error msg="two\\nlines \\"quoted\\""\n'
