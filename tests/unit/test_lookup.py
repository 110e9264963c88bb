"""Which grant a word means: an id, a name or a beginning, and what is said where it means none or several."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from gpuportion.allocator.lookup import find
from gpuportion.allocator.store import Grant
from gpuportion.errors import GpuportionError


def grant(id: str, name: str = "") -> Grant:
    return Grant("t" + id, "boot", "container", "", id, 0, (), 0, 0, name=name)


LONG = "bb33456789abcdef"
HERE = [grant("aa11", "train"), grant("aa22", "aa"), grant("pid-7", "python"), grant(LONG, "python")]
NAMELESS = [grant(f"{digit}23456789abcdef") for digit in "abcdefghi"]


@pytest.mark.parametrize(
    ("word", "id"), [("aa11", "aa11"), ("train", "aa11"), ("aa", "aa22"), ("bb", LONG), ("pid-7", "pid-7")]
)
def test_a_word_means_an_id_a_name_or_a_beginning(word: str, id: str) -> None:
    """In this order: the surer one decides."""
    assert find(HERE, word).id == id


@pytest.mark.parametrize(
    ("grants", "word", "says"),
    [
        (
            HERE,
            "python",
            "one container 'python' was not found: it may be pid-7 (python), bb33456789ab (python). "
            "Write more of the id.",
        ),
        (
            HERE,
            "zz",
            "a container 'zz' with a portion was not found: no grant has this name or id. "
            "There are aa11 (train), aa22 (aa), pid-7 (python), bb33456789ab (python).",
        ),
        (
            HERE[:1],
            "",
            "a container '' with a portion was not found: no grant has this name or id. There are aa11 (train).",
        ),
        (
            [],
            "train",
            "a container 'train' with a portion was not found: no grant has this name or id. Nobody holds one now.",
        ),
    ],
)
def test_a_word_that_means_none_or_several_is_refused(grants: Sequence[Grant], word: str, says: str) -> None:
    """Never the first that comes; who is there is told as `docker ps` calls it."""
    with pytest.raises(GpuportionError) as refused:
        find(grants, word)
    assert refused.value.text == f"GP305 {says}"


@pytest.mark.parametrize(
    ("count", "more"), [(7, "g23456789abc."), (8, "h23456789abc."), (9, "h23456789abc and 1 more.")]
)
def test_a_node_with_many_grants_names_eight(count: int, more: str) -> None:
    """The others are counted; ids are cut as docker cuts them."""
    with pytest.raises(GpuportionError) as refused:
        find(NAMELESS[:count], "zz")
    assert refused.value.text.endswith(f", {more}") and "There are a23456789abc, " in refused.value.text


def test_a_long_word_is_cut_in_what_is_said() -> None:
    """Whether it means nobody or several."""
    for grants in ([], [grant("1", "x" * 90), grant("2", "x" * 90)]):
        with pytest.raises(GpuportionError) as refused:
            find(grants, "x" * 90)
        assert f"container '{'x' * 80}'" in refused.value.text
