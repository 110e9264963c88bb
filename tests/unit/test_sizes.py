"""Amounts of memory: every spelling that is accepted, every one that is refused, and the rounding."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuportion import sizes
from gpuportion.sizes import MIB, UNITS, BadSizeError

ACCEPTED = {
    "4G": 4_000_000_000,
    "4GB": 4_000_000_000,
    "4gb": 4_000_000_000,
    "0.5G": 500_000_000,
    "1.5Gi": 3 << 29,
    "1.5gIb": 3 << 29,
    "4096M": 4_096_000_000,
    "4096Mi": 4 << 30,
    "4000000K": 4_000_000_000,
    "4000000Ki": 4_000_000 << 10,
    "0.001T": 1_000_000_000,
    "1Ti": 1 << 40,
    "1Mi": MIB,
    "999999999999999999.999999999Ti": 999999999999999999999999999 * (1 << 40) // 10**9,
}
NO_UNIT = ["4000", "4.5", "0", "1" * 200]
NOT_AN_AMOUNT = [
    *[
        "-4G",
        "+4G",
        "NaN",
        "inf",
        "1e9",
        "1e3M",
        "4 G",
        " 4G",
        "4G ",
        "4g4",
        "G",
        ".5G",
        "4.G",
        "4,5G",
        "0x4G",
    ],
    *["4Bi", "4P", "4GiBB", "four", "٤G", "4G\n", "4\0G", "1" * 19 + "G", "1.0000000001G", "4K B", "4000MiG"],
]
TOO_SMALL = ["0G", "0.0M", "1K", "1023Ki", "0.99Mi", "1M"]


@pytest.mark.parametrize(("text", "size"), ACCEPTED.items())
def test_an_amount_is_rounded_down_to_whole_mebibytes(text: str, size: int) -> None:
    """A grant is never larger than what was asked for."""
    assert sizes.parse(text) == size - size % MIB


COMPLAINTS = {
    "4000": "4000 has no unit. Write 4000M, 4G or 4Gi.",
    "4.5": "4.5 has no unit. Write 4.5M, 4G or 4Gi.",
    "1": "1 has no unit. Write 4000M, 4G or 4Gi.",
    "2": "2 has no unit. Write 2M, 4G or 4Gi.",
    "0": "0 has no unit. Write 4000M, 4G or 4Gi.",
    "1" * 18: f"{'1' * 18} has no unit. Write {'1' * 18}M, 4G or 4Gi.",
    "1" * 19: f"{'1' * 19} has no unit. Write 4000M, 4G or 4Gi.",
    "1" * 81: f"{'1' * 80} has no unit. Write 4000M, 4G or 4Gi.",
    "٤": "'٤' is not an amount of memory. Write 4000M, 4G or 4Gi.",
    " ": "  is empty. Write 4000M, 4G or 4Gi.",
    "x" * 80: f"'{'x' * 80}' is not an amount of memory. Write 4000M, 4G or 4Gi.",
    "x" * 81: f"'{'x' * 77}...' is not an amount of memory. Write 4000M, 4G or 4Gi.",
}


@pytest.mark.parametrize("text", COMPLAINTS)
def test_a_complaint_says_it_back_in_bearable_length(text: str) -> None:
    """And what to write; a flood of digits is not advised to be written with an M."""
    with pytest.raises(BadSizeError) as problem:
        sizes.parse(text)
    assert str(problem.value) == COMPLAINTS[text]


@pytest.mark.parametrize("text", NO_UNIT)
def test_a_bare_number_has_no_unit(text: str) -> None:
    """It would be bytes to some tools and MiB to others."""
    with pytest.raises(BadSizeError, match=r"has no unit\. Write \d+(\.\d)?M, 4G or 4Gi\.$") as refusal:
        sizes.parse(text)
    assert len(str(refusal.value)) < 200
    assert sizes.parse(str(refusal.value).rpartition("Write ")[2].partition(",")[0]) >= MIB


@pytest.mark.parametrize("text", NOT_AN_AMOUNT)
def test_what_is_no_amount_is_refused(text: str) -> None:
    """Signs, exponents, blanks, other digits and other units are no amounts."""
    with pytest.raises(BadSizeError, match="is not an amount of memory") as refusal:
        sizes.parse(text)
    assert str(refusal.value).isprintable(), "it goes into a log line"


@pytest.mark.parametrize("text", TOO_SMALL)
def test_nothing_is_no_amount(text: str) -> None:
    """Zero, and what rounds down to zero, is refused."""
    with pytest.raises(BadSizeError, match="is less than 1 MiB"):
        sizes.parse(text)


@pytest.mark.parametrize("text", ["", " ", "\t"])
def test_an_empty_amount_is_said_to_be_empty(text: str) -> None:
    """A key that is set but empty is a mistake of its own."""
    with pytest.raises(BadSizeError, match="is empty"):
        sizes.parse(text)


@given(
    whole=st.integers(0, 10**18 - 1),
    decimals=st.text("0123456789", max_size=9),
    unit=st.sampled_from(sorted(UNITS)),
    upper=st.booleans(),
    suffix=st.sampled_from(["", "b", "B"]),
)
def test_a_grant_is_the_largest_whole_mebibyte_within_the_request(
    whole: int, decimals: str, unit: str, upper: bool, suffix: str
) -> None:
    """Exact arithmetic for every spelling: never above the request, never a whole MiB below it."""
    number = f"{whole}.{decimals}" if decimals else str(whole)
    asked = Fraction(number) * UNITS[unit]
    text = number + (unit.upper() if upper else unit) + suffix
    if asked < MIB:
        with pytest.raises(BadSizeError):
            sizes.parse(text)
    else:
        got = sizes.parse(text)
        assert got % MIB == 0 and got <= asked < got + MIB


@given(st.text(max_size=40))
def test_any_text_is_an_amount_or_a_sentence(text: str) -> None:
    """No other exception, whatever an image's environment holds."""
    try:
        assert sizes.parse(text) >= MIB
    except BadSizeError as problem:
        assert str(problem).endswith("Write 4000M, 4G or 4Gi.") or "has no unit" in str(problem)


def test_sizes_are_shown_in_both_units() -> None:
    """Decimal as asked for, binary as nvidia-smi shows it."""
    assert sizes.both(sizes.parse("4G")) == "4.00 GB (3814 MiB)"
