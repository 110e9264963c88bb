"""Whatever the costs are: the numbers agree and everything comes back."""

from __future__ import annotations

import random

import pytest

from gpuportion.simgpu import state
from tests.simgpu.conftest import Start
from tests.simgpu.driver import MIB, OUT, SUCCESS, driver


@pytest.mark.parametrize("seed", range(6))
def test_random_work_under_random_costs_balances(start: Start, seed: int) -> None:
    """After each step CUDA's free memory is the device's less what the state says; at the end nothing is left."""
    sim = start("t4-16gb", seed=seed)
    draw = random.Random(seed)
    capacity = sim.devices[0].total - sim.devices[0].reserved
    held: list[int] = []
    with driver(sim) as cuda:
        cuda.open()
        for _ in range(120):
            if held and draw.random() < 0.45:
                cuda.free(held.pop(draw.randrange(len(held))))
            else:
                size = int(2 ** draw.uniform(0, 31))
                name, *more = draw.choice([("cuMemAlloc_v2",), ("cuMemAllocAsync", 0)])
                result, at = cuda.call(str(name), OUT, size, *more)
                held += [at] if result == SUCCESS else []
            used = state.used(sim.state)
            assert cuda.info() == (capacity - used, capacity)
        for at in held:
            cuda.free(at)
        cuda.do("cuCtxSynchronize")
        granted = cuda.alloc(16 * MIB)
        cuda.free(granted)
        cuda.do("cuDevicePrimaryCtxReset_v2", 0)
        assert state.used(sim.state) == 0
