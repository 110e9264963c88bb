"""Which GPUs could ever serve a request by MIG, and what is said where none could, however empty it were."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.mig_boards import gpu

from gpuportion.allocator.mig.geometry import Geometry
from gpuportion.allocator.mig.instances import MigGpu
from gpuportion.allocator.mig.possible import possible, written
from gpuportion.errors import GpuportionError
from gpuportion.shim.request import Request
from gpuportion.sizes import MIB, parse

A30, H100 = "NVIDIA A30", "NVIDIA H100 80GB HBM3"
RTX = "NVIDIA RTX PRO 6000 Blackwell Server Edition"
EMPTY = MigGpu(3, "GPU-3", "NVIDIA X", Geometry([]))
MEDIA = MigGpu(3, "GPU-3", "NVIDIA X", Geometry(one for one in gpu().board.profiles if one.variant))
LOST = gpu(0, trouble="it fell off the bus")
DEFAULT = (gpu(),)

REFUSED: list[tuple[Request, tuple[MigGpu, ...], str]] = [
    (
        Request(mig="1g.5gb"),
        (),
        "GP109 a portion by MIG cannot be served by this node: MIG is not enabled on any of its GPUs. "
        "Enable it: gpuportion node set-role --mig-enabled.",
    ),
    (
        Request(memory=(parse("4G"),), count=2),
        DEFAULT,
        "GP107 GPU_COUNT=2 is more than the one MIG portion that a container can get. Leave it out, or write "
        "GPU_ROLE=fraction.",
    ),
    (
        Request(memory=(parse("4G"),), select=("*H100*", "GPU-9")),
        (gpu(), EMPTY),
        "GP107 GPU_SELECT=*H100*,GPU-9 matches no GPU with MIG of this node. It has 0 (NVIDIA A100-SXM4-40GB, "
        "GPU-00000000-0000-0000-0000-000000000000), 3 (NVIDIA X, GPU-3).",
    ),
    (
        Request(memory=(parse("4G"),)),
        (LOST, EMPTY),
        "GP302 this node cannot enforce a memory limit: GPU 0: it fell off the bus; GPU 3: the driver offers no MIG "
        "profile on it. The container was not started. Run `gpuportion doctor`.",
    ),
    (
        Request(mig="2g.20gb"),
        (gpu(5), LOST),
        'GP103 unknown MIG profile "2g.20gb" on NVIDIA A100-SXM4-40GB. Available: '
        "1g.5gb 1g.5gb+me 1g.10gb 2g.10gb 3g.20gb 4g.20gb 7g.40gb.",
    ),
    (
        Request(mig="9g.1gb"),
        (gpu(1), gpu(0, A30), gpu(2)),
        'GP103 unknown MIG profile "9g.1gb" on NVIDIA A30 and NVIDIA A100-SXM4-40GB. Available: 1g.6gb 1g.5gb '
        "1g.5gb+me 1g.6gb+me 1g.10gb 2g.12gb 2g.12gb+me 2g.10gb 3g.20gb 4g.24gb 4g.20gb 7g.40gb.",
    ),
    (
        Request(mig="2g.10gb", memory=(parse("16G"),)),
        DEFAULT,
        "GP104 GPU_MIG=2g.10gb conflicts with GPU_MEMORY_LIMIT=16G: the profile has 9856 MiB. Drop one of them.",
    ),
    (
        Request(mig="1g.10gb", memory=(parse("16G"),)),
        (gpu(0), gpu(1, H100), gpu(2)),
        "GP104 GPU_MIG=1g.10gb conflicts with GPU_MEMORY_LIMIT=16G: the profile has 9984 MiB. Drop one of them.",
    ),
    (
        Request(mig="2g.10gb", memory=(9856 * MIB,), compute=30),
        DEFAULT,
        "GP104 GPU_MIG=2g.10gb conflicts with GPU_COMPUTE=30: the profile has 2 of 7 compute slices. "
        "Drop one of them.",
    ),
    (
        Request(mig="7g.40gb", compute=101),
        DEFAULT,
        "GP104 GPU_MIG=7g.40gb conflicts with GPU_COMPUTE=101: the profile has 7 of 7 compute slices. "
        "Drop one of them.",
    ),
    (
        Request(mig="2g.10gb", fraction=Decimal("0.50")),
        DEFAULT,
        "GP104 GPU_MIG=2g.10gb conflicts with GPU_FRACTION=0.5: the profile has 2 of 8 memory slices. "
        "Drop one of them.",
    ),
    (
        Request(mig="1g.6gb", fraction=Decimal("0.5"), compute=25),
        (gpu(0, A30),),
        "GP104 GPU_MIG=1g.6gb conflicts with GPU_FRACTION=0.5: the profile has 1 of 4 memory slices. "
        "Drop one of them.",
    ),
    (
        Request(memory=(parse("60G"),)),
        DEFAULT,
        "GP105 no MIG profile on this node (NVIDIA A100-SXM4-40GB) has 60.00 GB (57220 MiB); the largest is "
        "7g.40gb with 40192 MiB.",
    ),
    (
        Request(memory=(parse("200G"),), fraction=Decimal("0.50"), compute=30),
        (gpu(2), gpu(0), gpu(1, RTX)),
        f"GP105 no MIG profile on this node (NVIDIA A100-SXM4-40GB and {RTX}) has 200.00 GB (190734 MiB) and 0.5 of a "
        "GPU's memory and 30 % of a GPU's compute; the largest is 4g.96gb with 97408 MiB.",
    ),
    (
        Request(fraction=Decimal("0.1")),
        (MEDIA,),
        "GP105 no MIG profile on this node (NVIDIA X) has 0.1 of a GPU's memory; the largest is 1g.5gb+me with "
        "4864 MiB.",
    ),
]


@pytest.mark.parametrize(("want", "gpus", "text"), REFUSED)
def test_what_could_never_be_served_is_said_with_its_reason(
    want: Request, gpus: tuple[MigGpu, ...], text: str
) -> None:
    """And with what there is instead."""
    with pytest.raises(GpuportionError) as caught:
        possible(gpus, want)
    assert caught.value.text == text


@pytest.mark.parametrize(
    ("want", "indices"),
    [
        (Request(memory=(parse("4G"),)), [0, 1, 4]),
        (Request(memory=(parse("30G"),)), [0, 4]),
        (Request(mig="1g.6gb"), [1]),
        (Request(select=("4", "1")), [1, 4]),
        (Request(memory=(parse("4G"),), select=("*A30", "2")), [1]),
    ],
)
def test_the_able_gpus_come_by_index(want: Request, indices: list[int]) -> None:
    """Without the sick, those that were not selected, and those that are too small."""
    gpus = [gpu(4), gpu(2, trouble="it fell off the bus"), EMPTY, gpu(1, A30), gpu(0)]
    assert [one.index for one in possible(gpus, want)] == indices


@pytest.mark.parametrize(
    ("amount", "text"), [("16G", "16G"), ("20Gi", "20Gi"), ("1500M", "1500M"), ("0.5G", "500M")]
)
def test_an_amount_is_said_as_it_may_have_been_written(amount: str, text: str) -> None:
    """In whole units."""
    assert written(parse(amount)) == text


@given(st.integers(1, 1 << 40).map(lambda size: size * MIB))
def test_an_amount_that_is_said_is_the_one_that_was_asked_for(size: int) -> None:
    """Whatever it was."""
    assert parse(written(size)) == size
