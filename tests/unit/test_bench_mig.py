"""The bench's measure for the MIG planner, against every layout that a node can have."""

from __future__ import annotations

import importlib.util
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from types import ModuleType

import pytest
from tests.support.mig_boards import A100, board

BENCH = Path(__file__).parents[2] / "bench"


@pytest.fixture(scope="module")
def movable() -> Iterator[ModuleType]:
    """bench/mig_movable.py, which is a script's neighbour and in no package."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCH))
        spec = importlib.util.spec_from_file_location("mig_movable", BENCH / "mig_movable.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        patch.setitem(sys.modules, "mig_movable", module)
        spec.loader.exec_module(module)
        yield module


Kinds = tuple[int, ...]
"""How many there are of each kind of a board, in the order of KINDS."""

KINDS = tuple(dict.fromkeys((each.compute, each.size) for each in board(A100).profiles))
MASKS = [
    next(board(A100).masks[p.id] for p in board(A100).profiles if (p.compute, p.size) == kind)
    for kind in KINDS
]


def layouts() -> set[Kinds]:
    """What one board can hold, by trying every place."""
    found: set[Kinds] = set()

    seen: set[tuple[int, Kinds]] = set()

    def grow(taken: int, there: Kinds) -> None:
        if (taken, there) in seen:
            return
        seen.add((taken, there))
        found.add(there)
        for k, masks in enumerate(MASKS):
            for mask in masks:
                if not mask & taken:
                    grow(taken | mask, (*there[:k], there[k] + 1, *there[k + 1 :]))

    grow(0, (0,) * len(KINDS))
    return found


def counted(there: Sequence[int]) -> Counter[tuple[int, int]]:
    return Counter(dict(zip(KINDS, there, strict=True)))


def test_what_fits_one_board_or_two_is_what_can_be_laid_out(movable: ModuleType) -> None:
    """All that two boards can hold fits; with one instance more than any layout has, it does not."""
    one = layouts()
    two = {tuple(a + b for a, b in zip(left, right, strict=True)) for left, right in product(one, one)}
    for gpus, known in ((1, one), (2, two)):
        beyond = {
            (*there[:k], there[k] + 1, *there[k + 1 :]) for there in known for k in range(len(KINDS))
        } - known
        assert all(movable.fits(counted(there), gpus) for there in known)
        assert not any(movable.fits(counted(there), gpus) for there in beyond)
