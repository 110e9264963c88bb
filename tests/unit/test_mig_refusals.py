"""Why the MIG planner refuses, in the words of the contract."""

from __future__ import annotations

from decimal import Decimal

import pytest
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


A30 = "NVIDIA A30"
A30_1G, A30_2G = 14, 5


def avoiding(profile: int, *starts: int) -> Policy:
    return Policy(avoid=frozenset(Spot(gpu().uuid, profile, start) for start in starts))


WHOLE = [instance(gpu(), "7g.40gb", 0)]
STRANGE = Instance(gpu().uuid, 1, 99, 0, 4)
REFUSED: list[tuple[Request, list[MigGpu], list[Instance], Policy, str]] = [
    (  # a larger one has room
        Request(memory=(parse("4G"),)),
        [gpu(0, A30)],
        [],
        avoiding(A30_1G, 0, 1, 2, 3),
        "4.00 GB (3814 MiB) of GPU memory, which takes the MIG profile 1g.6gb (5952 MiB); GPU 0 has no place for that, "
        "with 4 of 4 memory slices free.\nNothing is in use on GPU 0.\n"
        "Try GPU_MIG_GROW=allow (it takes the larger 2g.12gb), or `gpuportion ps`.",
    ),
    (  # a larger one and a smaller one
        Request(memory=(parse("8G"),)),
        [gpu(0, A30)],
        [],
        avoiding(A30_2G, 0, 2),
        "8.00 GB (7629 MiB) of GPU memory, which takes the MIG profile 2g.12gb (11968 MiB); GPU 0 has no place for "
        "that, with 4 of 4 memory slices free.\nNothing is in use on GPU 0.\n"
        "Try GPU_MIG_GROW=allow (it takes the larger 4g.24gb), GPU_MEMORY_LIMIT=5952Mi, or `gpuportion ps`.",
    ),
    (  # nothing at all
        Request(mig="3g.20gb"),
        [gpu()],
        WHOLE,
        Policy(),
        "the MIG profile 3g.20gb (19968 MiB); GPU 0 has no place for that, with 0 of 8 memory slices free.\n"
        "In use on GPU 0: a container 7g.40gb. The next larger profile, 4g.20gb, has no place either.\n"
        "Try `gpuportion ps`.",
    ),
    (  # the whole GPU, cut by a profile that the driver does not tell
        Request(select=("0",)),
        [gpu()],
        [STRANGE],
        Policy(),
        "all of a GPU, which takes the MIG profile 7g.40gb (40192 MiB); GPU 0 has no place for that, with 4 of 8 "
        "memory slices free.\nIn use on GPU 0: others 4 memory slices.\nTry GPU_MIG=3g.20gb alone, or `gpuportion ps`.",
    ),
    (  # what two kinds of GPU would take
        Request(memory=(parse("8G"),), fraction=Decimal("0.20"), compute=20),
        [gpu(1, A30), gpu()],
        [*WHOLE, instance(gpu(1, A30), "4g.24gb", 0, ours=False)],
        Policy(),
        "8.00 GB (7629 MiB) of GPU memory and 0.2 of a GPU's memory and 20 % of a GPU's compute, which takes the MIG "
        "profile 2g.10gb (9856 MiB) or 2g.12gb (11968 MiB); none of 2 GPUs has a place for that; GPU 0 has 0 of 8 "
        "memory slices free.\nIn use on GPU 0: a container 7g.40gb. "
        "The next larger profile, 3g.20gb, has no place either.\nTry `gpuportion ps`.",
    ),
    (  # less memory alone would not do: compute was asked for, too
        Request(memory=(parse("4G"),), compute=50),
        [gpu()],
        [instance(gpu(), "4g.20gb", 0, holder="vllm"), instance(gpu(), "1g.5gb", 4)],
        Policy(),
        "4.00 GB (3814 MiB) of GPU memory and 50 % of a GPU's compute, which takes the MIG profile 4g.20gb (19968 "
        "MiB); GPU 0 has no place for that, with 3 of 8 memory slices free.\nIn use on GPU 0: vllm 4g.20gb, a "
        "container 1g.5gb. The next larger profile, 7g.40gb, has no place either.\n"
        "Try GPU_MIG=1g.10gb alone, or `gpuportion ps`.",
    ),
    (  # nor would it do for a fraction, or for a name
        Request(fraction=Decimal("0.5")),
        [gpu()],
        [instance(gpu(), "1g.5gb", 0), instance(gpu(), "1g.5gb", 4)],
        Policy(),
        "0.5 of a GPU's memory, which takes the MIG profile 3g.20gb (19968 MiB); GPU 0 has no place for that, with 6 "
        "of 8 memory slices free.\nIn use on GPU 0: a container 1g.5gb, a container 1g.5gb. The next larger profile, "
        "4g.20gb, has no place either.\nTry GPU_MIG=2g.10gb alone, or `gpuportion ps`.",
    ),
    (
        Request(mig="3g.20gb", memory=(parse("4G"),)),
        [gpu()],
        [instance(gpu(), "1g.5gb", 0), instance(gpu(), "1g.5gb", 4)],
        Policy(),
        "the MIG profile 3g.20gb (19968 MiB); GPU 0 has no place for that, with 6 of 8 memory slices free.\n"
        "In use on GPU 0: a container 1g.5gb, a container 1g.5gb. The next larger profile, 4g.20gb, has no place "
        "either.\nTry GPU_MIG=2g.10gb alone, or `gpuportion ps`.",
    ),
]


@pytest.mark.parametrize(("want", "gpus", "here", "policy", "says"), REFUSED)
def test_what_is_in_the_way_is_said_with_what_would_do(
    want: Request, gpus: list[MigGpu], here: list[Instance], policy: Policy, says: str
) -> None:
    """Only what has room now is suggested; a larger one is named and not taken."""
    assert now(want, gpus, here, policy) == f'GP101 container "train" was not started: it asks for {says}'
