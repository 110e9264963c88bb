"""By which way a request is served: fractions, MIG, and what is said where neither can."""

from __future__ import annotations

import re

import pytest
from tests.support import mig_boards

from gpuportion.allocator import no_room, placement
from gpuportion.allocator.devices import Gpu, Holding, Share
from gpuportion.allocator.mig import planner, refusals
from gpuportion.allocator.mig.instances import Instance
from gpuportion.allocator.mig.planner import Plan
from gpuportion.allocator.placement import Placement
from gpuportion.allocator.ways import choose
from gpuportion.errors import GpuportionError
from gpuportion.shim.request import Request, Role

GB = 10**9
MIB = 1 << 20
WHOLE = Gpu(5, "GPU-5", "NVIDIA A100-SXM4-40GB", 40 * GB)
PARTS = mig_boards.gpu()
FULL_GPU = [Holding("other", Share("GPU-5", 5, 39 * GB))]
FULL_MIG = [mig_boards.instance(PARTS, "7g.40gb", 0, holder="big")]


def chosen(
    want: Request,
    *,
    whole: bool = True,
    parts: bool = True,
    held: list[Holding] | None = None,
    instances: list[Instance] | None = None,
) -> Placement | Plan:
    gpus = [WHOLE] if whole else []
    migs = [PARTS] if parts else []

    def by_fraction() -> Placement | no_room.Refusal:
        return placement.plan(gpus, held or [], want)

    def by_mig() -> Plan | refusals.Refusal:
        return planner.plan(migs, instances or [], want, planner.Policy())

    return choose(want, "container x", gpus, migs, by_fraction, by_mig)


MEMORY = Request(memory=(4 * 1000 * MIB,))
FRACTION = Request(memory=MEMORY.memory, role=Role.FRACTION)


@pytest.mark.parametrize(
    ("want", "kind"),
    [
        (MEMORY, Placement),
        (Request(), Placement),
        (Request(mig="1g.5gb"), Plan),
        (Request(compute=30), Plan),
        (Request(memory=MEMORY.memory, compute=30), Plan),
        (Request(memory=MEMORY.memory, role=Role.MIG), Plan),
        (FRACTION, Placement),
        (Request(memory=MEMORY.memory, select=("0",)), Plan),
        (Request(memory=MEMORY.memory, select=("5",)), Placement),
    ],
)
def test_a_request_has_a_preferred_way(want: Request, kind: type[object]) -> None:
    """Memory by a fraction; compute and profiles by MIG; what is selected or pinned, so."""
    assert isinstance(chosen(want), kind)


def test_the_other_way_serves_where_the_first_has_no_room() -> None:
    """In both directions, as far as the other way can do it at all; also where the first way never could."""
    assert isinstance(chosen(Request(memory=(41 * GB,))), Plan)
    assert isinstance(chosen(MEMORY, held=FULL_GPU), Plan)
    assert isinstance(chosen(MEMORY, whole=False), Plan)
    assert isinstance(chosen(MEMORY, parts=False), Placement)
    assert isinstance(chosen(MEMORY, instances=FULL_MIG), Placement)


@pytest.mark.parametrize(
    ("want", "setting", "refusal"),
    [
        (MEMORY, {"held": FULL_GPU, "instances": FULL_MIG}, "GP101 container x .*other 39.00 GB.*other way: GPU 0"),
        (Request(compute=30), {"instances": FULL_MIG}, "GP101 .*big 7g.40gb"),
        (Request(compute=30), {"parts": False}, "GP109 30 % of a GPU's compute"),
        (Request(mig="1g.5gb"), {"parts": False}, "GP109 a portion by MIG .*set-role"),
        (Request(mig="1g.5gb", role=Role.FRACTION), {}, "GP109 the MIG profile 1g.5gb .*Drop one"),
        (FRACTION, {"whole": False}, r"GP109 a fraction of a GPU .*leave out GPU_ROLE\.$"),
        (Request(memory=MEMORY.memory, role=Role.FRACTION, select=("7",)), {"whole": False}, "GP107 GPU_SELECT=7 "),
        (Request(memory=(90 * 1000 * MIB,)), {}, "GP107 GPU_MEMORY_LIMIT"),
        (Request(memory=(90 * 1000 * MIB,)), {"whole": False}, "GP105 "),
        (Request(memory=(90 * 1000 * MIB,)), {"held": FULL_GPU, "instances": FULL_MIG}, "GP107 "),
        (Request(memory=(90 * GB,), compute=30), {}, "GP105 "),
        (Request(memory=MEMORY.memory, select=("7", "8*")), {}, r"GPU_SELECT=7,8\* .* 0 \([^)]*\), 5 \([^)]*\)\.$"),
        (Request(memory=MEMORY.memory * 2, count=2), {"whole": False}, "GP107 GPU_COUNT=2"),
    ],
)  # fmt: skip
def test_what_stands_in_the_way_is_said(want: Request, setting: dict[str, object], refusal: str) -> None:
    """Of the preferred way; what may pass goes before what never will."""
    with pytest.raises(GpuportionError) as refused:
        chosen(want, **setting)  # type: ignore[arg-type]

    assert re.search(f"(?s){refusal}", refused.value.text), refused.value.text
