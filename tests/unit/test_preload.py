"""Our libraries and the image's own, merged."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuportion.shim.preload import MAX_BYTES, MAX_TOKEN, OURS, preload_text, preload_variable

OWN = "".join(f"{path}\n" for path in OURS).encode()

FILES = {
    b"": b"",
    b"/usr/lib/libjemalloc.so.2\n": b"/usr/lib/libjemalloc.so.2\n",
    b"/a.so /b.so\t/c.so:/d.so": b"/a.so\n/b.so\n/c.so\n/d.so\n",
    b"# a comment /not.so\n/a.so # and /neither.so\n/b.so": b"/a.so\n/b.so\n",
    b"/a.so\n/a.so\n": b"/a.so\n",
    b"/\xff\xfe.so /\x01.so\n/a.so": b"/a.so\n",
    b"/$LIB/x.so": b"/$LIB/x.so\n",
    OWN + b"/a.so\n": b"/a.so\n",
    b"/" + b"x" * 5000 + b" /a.so": b"/a.so\n",
    b"\0" * 100: b"",
}


@pytest.mark.parametrize(("image", "kept"), FILES.items())
def test_an_images_own_list_comes_behind_ours(image: bytes, kept: bytes) -> None:
    """Plain paths are kept, everything else is dropped."""
    assert preload_text(image) == OWN + kept


def test_a_huge_list_is_cut_at_a_whole_path() -> None:
    """What is cut is dropped, never taken for a shorter path."""
    text = preload_text(b"/abcdefghi " * (MAX_BYTES // 8))
    assert text == OWN + b"/abcdefghi\n"


def test_the_largest_list_and_the_longest_path_are_kept_whole() -> None:
    """Exactly as much as fits is not cut."""
    line = b"/" + b"a" * (MAX_TOKEN - 1) + b" "
    image = line * (MAX_BYTES // len(line)) + b"/last"
    image += b"x" * (MAX_BYTES - len(image))
    kept = preload_text(image)
    assert kept == OWN + line[:-1] + b"\n" + image[len(line) * (MAX_BYTES // len(line)) :] + b"\n"
    assert preload_text(image + b"y") == OWN + line[:-1] + b"\n"
    assert preload_text(b"/a" + line) == OWN


@given(st.binary(max_size=300))
def test_any_bytes_give_a_plain_list_with_ours_first(image: bytes) -> None:
    """Merging again changes nothing, so that a second edit is harmless."""
    text = preload_text(image)
    assert text.startswith(OWN) and text.isascii() and text.endswith(b"\n")
    assert preload_text(text) == text


VARIABLES = {
    "": [],
    "/a.so": ["/a.so"],
    "/a.so:/b.so /c.so": ["/a.so", "/b.so", "/c.so"],
    ":".join([*OURS, "/a.so"]): ["/a.so"],
    "::": [],
}


@pytest.mark.parametrize(("own", "kept"), VARIABLES.items())
def test_the_variable_keeps_the_images_own_behind_ours(own: str, kept: list[str]) -> None:
    """A second variable would win over ours or lose the image's: they become one."""
    assert preload_variable(own) == ":".join([*OURS, *kept])
