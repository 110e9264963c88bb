"""What the planner is told of the instances on a node."""

from __future__ import annotations

import dataclasses

import pytest
from tests.support.mig_boards import A100, BOARDS, profiles

from gpuportion.allocator.devices import Gpu
from gpuportion.allocator.mig.node import MigNode
from gpuportion.allocator.mig.records import Phase, Record
from gpuportion.allocator.mig.roles import ByMode
from gpuportion.allocator.mig.seen import Compute, MigReading, Seen

GPU = Gpu(0, "GPU-1", A100, 40 << 30)
IDLE = Record(
    1, "boot", "GPU-1", 19, "1g.5gb", 6, 1, 4864 << 20, 1, phase=Phase.READY, gi=13, ci=0, uuid="MIG-a"
)
SEEN = Seen(13, 19, 6, 1, (Compute(0, "MIG-a"),))
READING = MigReading(True, True, 1.0, profiles(BOARDS[A100]), (SEEN,))


@pytest.fixture
def node() -> MigNode:
    made = MigNode(ByMode())
    made.update([GPU], {"GPU-1": READING})
    return made


def test_an_idle_instance_can_be_handed_over_or_go(node: MigNode) -> None:
    """By its id, as the driver has it."""
    (one,) = node.instances([IDLE], (), {})
    assert (one.id, one.whole, one.evictable, one.ours) == (13, True, True, True)


def test_an_instance_that_others_may_know_is_not_handed_over(node: MigNode) -> None:
    """It can go, and does."""
    (one,) = node.instances([dataclasses.replace(IDLE, once=True)], (), {})
    assert (one.whole, one.evictable) == (False, True)


def test_how_large_a_gpu_is_is_known_while_its_driver_fails(node: MigNode) -> None:
    """What is made then is shown as any other."""
    failing = MigReading(True, True, 2.0, trouble="it does not answer")
    node.update([GPU], {"GPU-1": failing})
    assert node.portion(IDLE).compute_total == 7
    assert node.seen("GPU-1") is None
