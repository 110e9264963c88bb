"""The sentences of GP101, whole, for every kind of request and node; and the amount that they suggest."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuportion import sizes
from gpuportion.allocator.devices import MINIMUM, Gpu, Holding, Share
from gpuportion.allocator.no_room import Refusal, gpus, suggestion
from gpuportion.shim.request import Request
from gpuportion.sizes import MIB

GIB, GB = 1 << 30, 10**9
BEST = Gpu(3, "GPU-3", "NVIDIA A100", total=80 * GIB, reserved=700_000_000)
REFUSED = Refusal(
    Request(memory=(4 * GIB,)), BEST, best_free=2_400_000_000, fitting=0, eligible=2, holdings=()
)


def holdings(count: int) -> tuple[Holding, ...]:
    return tuple(Holding(f"c{at}", Share("GPU-3", 3, (at + 1) * GB)) for at in range(count))


ASKED: list[tuple[Request, str]] = [
    (Request(memory=(4 * GIB,)), "4.29 GB (4096 MiB) of GPU memory"),
    (Request(memory=(4 * GIB,) * 3, count=3), "4.29 GB (4096 MiB) of GPU memory on each of 3 GPUs"),
    (
        Request(memory=(GIB, 2 * GIB, GIB), count=3),
        "1.07 GB (1024 MiB) and 2.15 GB (2048 MiB) and 1.07 GB (1024 MiB) of GPU memory",
    ),
    (Request(fraction=Decimal("0.50")), "0.5 of a GPU's memory"),
    (Request(fraction=Decimal("0.3333"), count=2), "0.3333 of a GPU's memory on each of 2 GPUs"),
    (Request(), "all of 1 GPU"),
    (Request(count=2), "all of 2 GPUs"),
]


@pytest.mark.parametrize(("want", "asked"), ASKED)
def test_the_request_is_said_back(want: Request, asked: str) -> None:
    """In both units, and for how many GPUs."""
    text = replace(REFUSED, want=want).error('container "train"').text
    assert text.startswith(f'GP101 container "train" was not started: it asks for {asked}; ')


TWO = Request(count=2)
ROOM: list[tuple[dict[str, Any], str]] = [
    ({}, "GPU 3 has 2.40 GB free to grant"),
    ({"holdings": holdings(1)}, "GPU 3 has 2.40 GB free to grant"),
    ({"alone": True}, "GPU 3 has 2.40 GB free to grant"),
    ({"alone": True, "holdings": holdings(1)}, "GPU 3 is in use"),
    ({"want": TWO}, "0 of 2 GPUs have that; GPU 3 has 2.40 GB free to grant"),
    ({"want": TWO, "fitting": 1}, "1 of 2 GPUs has that; GPU 3 has 2.40 GB free to grant"),
    ({"want": TWO, "fitting": 2, "eligible": 4}, "2 of 4 GPUs have that; GPU 3 has 2.40 GB free to grant"),
    (
        {"want": TWO, "eligible": 1, "alone": True, "holdings": holdings(2)},
        "0 of 1 GPU have that; GPU 3 is in use",
    ),
]


@pytest.mark.parametrize(("said", "room"), ROOM)
def test_the_room_that_there_is_is_told(said: dict[str, Any], room: str) -> None:
    """Of the GPU that comes nearest, and how many would do where several are wanted."""
    assert f"; {room}.\n" in replace(REFUSED, **said).error("it").text


DRIVER = "0.70 GB is reserved by the driver; 0.07 GB is kept back as margin"
HOLDERS: list[tuple[dict[str, Any], str]] = [
    ({}, f"Nothing is granted on GPU 3 now; {DRIVER}."),
    ({"holdings": holdings(2)}, f"Granted now on GPU 3: c0 1.00 GB, c1 2.00 GB; {DRIVER}."),
    (
        {"best": replace(BEST, margin=0)},
        "Nothing is granted on GPU 3 now; 0.70 GB is reserved by the driver.",
    ),
    (
        {"best": replace(BEST, unmanaged=1)},
        f"Nothing is granted on GPU 3 now; {DRIVER}; 0.00 GB is held without a grant or beyond one.",
    ),
    (
        {"best": replace(BEST, unmanaged=5 * GB), "holdings": holdings(1)},
        f"Granted now on GPU 3: c0 1.00 GB; {DRIVER}; 5.00 GB is held without a grant or beyond one.",
    ),
]


@pytest.mark.parametrize(("said", "holders"), HOLDERS)
def test_who_has_the_rest_is_told(said: dict[str, Any], holders: str) -> None:
    """Grants by name, then what the driver, the margin and strangers take."""
    assert replace(REFUSED, **said).error("it").text.splitlines()[1] == holders


@pytest.mark.parametrize(
    ("count", "end"), [(7, "c6 7.00 GB;"), (8, "c7 8.00 GB;"), (11, "c7 8.00 GB and 3 more;")]
)
def test_eight_holders_are_named(count: int, end: str) -> None:
    """And the others counted."""
    listed = replace(REFUSED, holdings=holdings(count)).error("it").text.splitlines()[1]
    assert f"{end} {DRIVER}" in listed and listed.count(", ") == min(count, 8) - 1


@pytest.mark.parametrize(
    ("suggested", "elsewhere", "hints"),
    [
        ("", False, ""),
        ("2G", False, "GPU_MEMORY_LIMIT=2G, or "),
        ("", True, "another GPU, or "),
        ("640M", True, "GPU_MEMORY_LIMIT=640M, another GPU, or "),
    ],
)
def test_what_may_be_tried_is_listed(suggested: str, elsewhere: bool, hints: str) -> None:
    """`gpuportion ps` always."""
    text = replace(REFUSED, suggested=suggested, elsewhere=elsewhere).error("it").text
    assert text.splitlines()[2] == f"Try {hints}`gpuportion ps`."


SUGGESTIONS: list[tuple[int, int, str]] = [  # room, minimum in MiB -> text
    (80 * GB, 256, "80G"),
    (2048 * GB, 1_953_125, "2048G"),  # the same to the byte
    (2 * GB, 256, "2G"),
    (2 * GB - 1, 953, "1G"),
    (2 * GB - 1, 954, ""),
    (GB, 953, "1G"),
    (GB - 1, 256, "990M"),
    (645_000_000, 610, "640M"),
    (645_000_000, 611, ""),
    (270_000_000, 256, "270M"),
    (269_999_999, 256, ""),
    (3 << 20, 1, ""),
    (0, 1, ""),
]


@pytest.mark.parametrize(("room", "least", "text"), SUGGESTIONS)
def test_a_suggestion_is_a_round_amount(room: int, least: int, text: str) -> None:
    """In whole gigabytes, below one in tens of megabytes; none where that could not be granted."""
    assert suggestion(room, least * MIB) == text


@given(st.integers(1, 4096), st.integers(0, 8 * GB))
def test_a_suggestion_is_at_least_the_minimum(least: int, room: int) -> None:
    """What would be granted of it, in whole MiB: not one less, and nothing is kept back that would do."""
    text = suggestion(room, least * MIB)
    step = GB if room >= GB else 10**7
    granted = room // step * step // MIB
    assert bool(text) == (granted >= least)
    if text:
        assert sizes.parse(text) == granted * MIB


def test_the_usual_minimum_counts_where_none_is_said() -> None:
    """256 MiB, which a round amount of 260 MB is just below."""
    assert MINIMUM == 256 * MIB
    assert [suggestion(room) for room in (260_000_000, 270_000_000)] == ["", "270M"]
    assert suggestion(16 * MINIMUM, 16 * MINIMUM) == ""  # 4.29 GB: 4G would be below it


def test_one_gpu_is_not_many() -> None:
    """In every sentence that counts them."""
    assert [gpus(count) for count in (0, 1, 2)] == ["0 GPUs", "1 GPU", "2 GPUs"]
