"""Why the MIG planner refuses, in the words of the contract."""

from __future__ import annotations

from decimal import Decimal

import pytest
from tests.support.mig_boards import gpu, instance

from gpuportion.allocator.mig.instances import Instance, MigGpu
from gpuportion.allocator.mig.planner import Policy, Spot, plan
from gpuportion.allocator.mig.refusals import Refusal
from gpuportion.errors import GpuportionError
from gpuportion.shim.request import Request
from gpuportion.sizes import parse


def never(want: Request, *gpus: MigGpu) -> str:
    with pytest.raises(GpuportionError) as caught:
        plan(gpus or (gpu(),), (), want, Policy())
    return caught.value.text


def now(want: Request, gpus: list[MigGpu], instances: list[Instance], policy: Policy | None = None) -> str:
    found = plan(gpus, instances, want, policy or Policy())
    assert isinstance(found, Refusal)
    return found.error('container "train"').text


@pytest.mark.parametrize(
    ("want", "text"),
    [
        (
            Request(mig="2g.20gb"),
            'GP103 unknown MIG profile "2g.20gb" on NVIDIA A100-SXM4-40GB. Available: '
            "1g.5gb 1g.5gb+me 1g.10gb 2g.10gb 3g.20gb 4g.20gb 7g.40gb.",
        ),
        (
            Request(mig="2g.10gb", memory=(parse("16G"),)),
            "GP104 GPU_MIG=2g.10gb conflicts with GPU_MEMORY_LIMIT=16G: the profile has 9856 MiB. Drop one of them.",
        ),
        (
            Request(mig="2g.10gb", compute=30),
            "GP104 GPU_MIG=2g.10gb conflicts with GPU_COMPUTE=30: the profile has 2 of 7 compute slices. "
            "Drop one of them.",
        ),
        (
            Request(mig="2g.10gb", fraction=Decimal("0.5")),
            "GP104 GPU_MIG=2g.10gb conflicts with GPU_FRACTION=0.5: the profile has 2 of 8 memory slices. "
            "Drop one of them.",
        ),
        (
            Request(memory=(parse("60G"),)),
            "GP105 no MIG profile on this node (NVIDIA A100-SXM4-40GB) has 60.00 GB (57220 MiB); the largest is "
            "7g.40gb with 40192 MiB.",
        ),
        (
            Request(memory=(parse("4G"),), count=2),
            "GP107 GPU_COUNT=2 is more than the one MIG portion that a container can get. Leave it out, or write "
            "GPU_ROLE=fraction.",
        ),
    ],
)
def test_what_could_never_be_served(want: Request, text: str) -> None:
    """However empty the node were."""
    assert never(want) == text


def test_a_selection_that_matches_nothing_names_what_there_is() -> None:
    """By index, model and UUID, as it may be selected."""
    text = never(Request(memory=(parse("4G"),), select=("*H100*",)))
    assert text.startswith(
        "GP107 GPU_SELECT=*H100* matches no GPU with MIG of this node. It has 0 (NVIDIA A100-SXM4-"
    )


def test_no_healthy_gpu_says_what_is_wrong_with_each() -> None:
    """A board whose driver offers no profile counts as one."""
    text = never(Request(memory=(parse("4G"),)), gpu(0, trouble="it fell off the bus"))
    assert "GPU 0: it fell off the bus" in text and text.startswith("GP302")


def test_no_gpu_with_mig_says_how_to_get_one() -> None:
    """The role is the administrator's to give."""
    with pytest.raises(GpuportionError, match="gpuportion node set-role --mig-enabled") as caught:
        plan([], (), Request(mig="1g.5gb"), Policy())
    assert caught.value.code == "GP109"


def test_no_room_now_says_who_has_it_and_what_would_fit() -> None:
    """The numbers of the GPU that comes nearest; a smaller amount that has room."""
    on = gpu()
    here = [
        instance(on, "3g.20gb", 4, holder="jupyter-ann"),
        instance(on, "1g.5gb", 0, ours=False),
        instance(on, "1g.5gb", 1, idle_since=1.0),
    ]
    assert now(Request(memory=(parse("20G"),)), [on], here) == (
        'GP101 container "train" was not started: it asks for 20.00 GB (19073 MiB) of GPU memory, which takes the MIG '
        "profile 3g.20gb (19968 MiB); GPU 0 has no place for that, with 3 of 8 memory slices free.\n"
        "In use on GPU 0: jupyter-ann 3g.20gb, others 1g.5gb. The next larger profile, 4g.20gb, has no place either.\n"
        "Try GPU_MEMORY_LIMIT=9856Mi, or `gpuportion ps`."
    )


def test_several_gpus_without_room_are_one_sentence() -> None:
    """The nearest is named, the others are counted."""
    gpus = [gpu(0), gpu(1)]
    here = [instance(gpus[0], "7g.40gb", 0), instance(gpus[1], "4g.20gb", 0, holder="vllm")]
    assert now(Request(mig="4g.20gb"), gpus, here) == (
        'GP101 container "train" was not started: it asks for the MIG profile 4g.20gb (19968 MiB); none of 2 GPUs has '
        "a place for that; GPU 1 has 4 of 8 memory slices free.\n"
        "In use on GPU 1: vllm 4g.20gb. The next larger profile, 7g.40gb, has no place either.\n"
        "Try GPU_MIG=3g.20gb alone, or `gpuportion ps`."
    )


def test_a_larger_profile_with_room_is_named_and_not_taken() -> None:
    """Whoever asked may allow it."""
    on = gpu(0, "NVIDIA A30")
    spots = frozenset(Spot(on.uuid, 14, start) for start in range(4))
    text = now(Request(memory=(parse("4G"),)), [on], [], Policy(avoid=spots))
    assert text.endswith("Try GPU_MIG_GROW=allow (it takes the larger 2g.12gb), or `gpuportion ps`.")
