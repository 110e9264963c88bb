"""JSON of specs: as the standard library reads and writes it, and stricter where a runtime would be."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuportion.allocator import fast_json

INTEGERS = st.integers(-(2**63), 2**64 - 1)
VALUES = st.recursive(
    st.none() | st.booleans() | INTEGERS | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(VALUES)
def test_what_is_written_is_what_was_read(value: object) -> None:
    """Integers of 64 bits with a sign or without one keep every digit; the standard library is the oracle."""
    text = json.dumps(value).encode()
    assert fast_json.loads(text) == value
    assert json.loads(fast_json.dumps(fast_json.loads(text))) == value


@pytest.mark.parametrize(
    "text", [b"", b"{", b"NaN", b"[1e400]", b'"\\ud800"', b"\xff", b"[" * 5000, b"{} {}"], ids=str
)
def test_what_is_no_json_is_refused(text: bytes) -> None:
    """By one error, with the place."""
    with pytest.raises(ValueError, match="line 1 column"):
        fast_json.loads(text)


def test_records_are_objects_of_their_fields() -> None:
    """As the store keeps them."""

    @dataclasses.dataclass(frozen=True, slots=True)
    class Record:
        name: str
        sizes: tuple[int, ...]

    assert fast_json.dumps(Record("ü", (1, 2))) == '{"name":"ü","sizes":[1,2]}'.encode()
