"""Why the MIG planner refuses, in the words of the contract."""

from __future__ import annotations

from tests.support.mig_boards import gpu, instance

from gpuportion.allocator.mig.instances import Instance, MigGpu
from gpuportion.allocator.mig.planner import Policy, Spot, plan
from gpuportion.allocator.mig.refusals import Refusal
from gpuportion.shim.request import Request
from gpuportion.sizes import parse


def now(want: Request, gpus: list[MigGpu], instances: list[Instance], policy: Policy | None = None) -> str:
    found = plan(gpus, instances, want, policy or Policy())
    assert isinstance(found, Refusal)
    return found.error('container "train"').text


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
