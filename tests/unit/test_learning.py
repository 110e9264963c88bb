"""How large a context is, from what NVML and ledgers say, one of which may lie."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuportion.allocator import learning
from gpuportion.allocator.learning import DEFAULT, LARGEST, SMALLEST, VOTES, Learned
from gpuportion.sizes import MIB


def test_what_nvml_has_more_than_the_ledger_is_the_context() -> None:
    """The ledger's count has the context in it that the policy told to charge."""
    assert learning.estimate(held=1424 * MIB, counted=1304 * MIB, context=304 * MIB) == 424 * MIB


@pytest.mark.parametrize(
    ("held", "counted"), [(100 * MIB, 900 * MIB), (6000 * MIB, 304 * MIB), (304 * MIB, 0), (0, 0)]
)
def test_what_cannot_be_a_context_is_no_estimate(held: int, counted: int) -> None:
    """Less than nothing, more than any, or more than the process holds at all."""
    assert learning.estimate(held, counted, context=304 * MIB) is None


def test_the_bounds_of_an_estimate_are_possible() -> None:
    """The smallest and the largest context, and a process that holds nothing else."""
    assert learning.estimate(held=SMALLEST, counted=0, context=0) == SMALLEST
    assert learning.estimate(held=SMALLEST - 1, counted=0, context=0) is None
    assert learning.estimate(held=LARGEST, counted=0, context=0) == LARGEST
    assert learning.estimate(held=LARGEST + 1, counted=0, context=0) is None
    assert learning.estimate(held=424 * MIB, counted=304 * MIB, context=304 * MIB) == 424 * MIB


def test_before_anything_is_learned_the_default_counts() -> None:
    """And never more than NVML saw any process hold."""
    assert Learned().context == DEFAULT
    assert Learned(ceiling=100 * MIB).context == 100 * MIB


def test_one_liar_does_not_decide() -> None:
    """The median of the grants' votes does."""
    learned = Learned()
    for estimated in (420, 424, 9, 430, 2000):
        learned = learning.vote(learned, estimated * MIB, held=2400 * MIB)
    assert learned.context == 424 * MIB


@given(st.lists(st.integers(SMALLEST, LARGEST), max_size=40), st.integers(SMALLEST, LARGEST))
def test_nobody_can_raise_it_above_what_a_process_really_held(votes: list[int], held: int) -> None:
    """A vote is a container's word, the ceiling is NVML's. Old votes go."""
    learned = learning.vote(Learned(), held, held)
    for estimated in votes:
        learned = learning.vote(learned, estimated, LARGEST)
    assert SMALLEST <= learned.context <= held
    assert len(learned.votes) <= VOTES


def test_it_is_kept_over_reboots(tmp_path: Path) -> None:
    """What was saved is loaded, and the folder is made."""
    path = str(tmp_path / "lib" / "context.json")
    learned = {"NVIDIA A100": learning.vote(Learned(), 424 * MIB, 500 * MIB)}
    for _ in range(2):
        learning.save(path, learned)
        assert learning.load(path) == learned


def test_what_was_learned_under_another_driver_counts_no_more() -> None:
    """A context's size changes with the driver, up or down; what was seen under the last one is no bound."""
    names = {learning.kind(model, driver) for model in ("A100", "H100") for driver in ("535.1", "550.1")}
    assert len(names) == 4


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", '{"A": 3}', '{"A": {"votes": 3, "ceiling": 4}}', '{"A": {"votes": [], "ceiling": "x"}}'],
)
def test_a_broken_file_teaches_nothing(tmp_path: Path, content: str) -> None:
    """It is learned anew."""
    (tmp_path / "context.json").write_text(content)
    assert learning.load(str(tmp_path / "context.json")) == {}


def test_absurd_values_in_the_file_are_left_out(tmp_path: Path) -> None:
    """Somebody edited it."""
    (tmp_path / "c").write_text('{"A": {"votes": [1, 440401920, 99999999999999], "ceiling": 0}}')
    assert learning.load(str(tmp_path / "c")) == {"A": Learned((440401920,), SMALLEST)}
    (tmp_path / "c").write_text(f'{{"A": {{"votes": [{SMALLEST}, {LARGEST}], "ceiling": {LARGEST}}}}}')
    assert learning.load(str(tmp_path / "c")) == {"A": Learned((SMALLEST, LARGEST), LARGEST)}


def test_only_root_can_write_into_its_folder(tmp_path: Path) -> None:
    """Whatever the umask is."""
    before = os.umask(0)
    try:
        learning.save(str(tmp_path / "lib" / "context.json"), {})
    finally:
        os.umask(before)
    assert os.stat(tmp_path / "lib").st_mode & 0o777 == 0o755
