"""What contexts take beyond their own cost, green ones, peers; and calls that are told to fail."""

from __future__ import annotations

import time

import pytest

from gpuportion.errors import GpuportionError
from gpuportion.simgpu import Behaviour, Sim, state
from gpuportion.simgpu.costs import DEFAULTS
from tests.simgpu.conftest import Start
from tests.simgpu.driver import INVALID_VALUE, MIB, OUT, OUT_OF_MEMORY, Driver, driver

CONTEXT, GREEN = DEFAULTS["context"], 2 * MIB
STACK, PRINTF, HEAP = 0, 1, 2
THREADS = 108 * 2048


def kernel(cuda: Driver) -> int:
    module = cuda.do("cuModuleLoadData", OUT, ".version 8.0\n.visible .entry add()")
    return cuda.do("cuModuleGetFunction", OUT, module, "add")


def launch(cuda: Driver, function: int) -> int:
    return cuda.call("cuLaunchKernel", function, 1, 1, 1, 32, 1, 1, 0, 0, 0, 0)[0]


@pytest.mark.parametrize(
    ("limit", "at_first", "each"), [(STACK, 1024, THREADS), (PRINTF, MIB, 1), (HEAP, 8 * MIB, 1)]
)
def test_a_raised_limit_is_taken_by_the_next_launch(sim: Sim, limit: int, at_first: int, each: int) -> None:
    """And given back when it is lowered, or with the context; one that does not fit fails the launch."""
    with driver(sim) as cuda:
        function = kernel(cuda.open())
        used = state.used(sim.state)
        cuda.do("cuCtxSetLimit", limit, at_first + 400 * MIB // each)
        assert state.used(sim.state) == used
        assert launch(cuda, function) == 0
        assert used + 399 * MIB < state.used(sim.state) <= used + 400 * MIB
        cuda.do("cuCtxSetLimit", limit, at_first // 2)
        assert state.used(sim.state) == used
        cuda.do("cuCtxSetLimit", limit, 1 << 50)
        assert launch(cuda, function) == OUT_OF_MEMORY
        cuda.do("cuCtxSetLimit", limit, at_first + 400 * MIB // each)
        assert launch(cuda, function) == 0
        cuda.do("cuDevicePrimaryCtxReset_v2", 0)
        assert state.used(sim.state) == 0


def test_a_green_context_costs_a_little_and_has_its_part(start: Start) -> None:
    """Beside the primary context, which it keeps; what is allocated in it goes with it."""
    sim = start(costs={"green": GREEN})
    with driver(sim) as cuda:
        cuda.do("cuInit", 0)
        whole = {"hex": cuda.ask(call="cuDeviceGetDevResource", args=[0, {"hex": "00" * 144}, 1])["after"][0]}
        said = cuda.ask(
            call="cuDevSmResourceSplitByCount",
            args=[{"hex": "00" * 288}, {"hex": "02000000"}, whole, 0, 0, 16],
        )
        first = {"hex": said["after"][0][:288]}
        description = cuda.do("cuDevResourceGenerateDesc", OUT, first, 1)
        green = cuda.do("cuGreenCtxCreate", OUT, description, 0, 1)
        assert state.used(sim.state) == CONTEXT + GREEN
        cuda.do("cuCtxSetCurrent", cuda.do("cuCtxFromGreenCtx", OUT, green))
        cuda.alloc(10 * MIB)
        assert cuda.do("cuGreenCtxStreamCreate", OUT, green, 1, 0)
        cuda.do("cuGreenCtxDestroy", green)
        assert state.used(sim.state) == 0
        assert cuda.call("cuGreenCtxCreate", OUT, description, 0, 0)[0] == INVALID_VALUE


def test_peer_access_is_enabled_once(start: Start) -> None:
    """For another device's context; where devices do not reach each other, never."""
    for peers in (True, False):
        sim = start("t4-16gb:2", behaviour=Behaviour(peers=peers))
        with driver(sim) as cuda:
            peer = cuda.do("cuInit", 0) or cuda.do("cuDevicePrimaryCtxRetain", OUT, 1)
            own = cuda.do("cuDevicePrimaryCtxRetain", OUT, 0)
            cuda.do("cuCtxSetCurrent", own)
            can = cuda.call("cuDeviceCanAccessPeer", {"out32": 1}, 0, 1)
            assert can == (0, int(peers))
            answers = [
                cuda.call(f"cuCtx{verb}PeerAccess", peer, 0)[0]
                for verb in ("Enable", "Enable", "Disable", "Disable")
            ]
            assert answers == ([0, 704, 0, 705] if peers else [217, 217, 705, 705])
            assert cuda.call("cuCtxEnablePeerAccess", own, 0)[0] == 101


def test_calls_fail_as_the_settings_say(start: Start) -> None:
    """The n-th of a name, or every one; a call that fails does nothing."""
    sim = start(behaviour=Behaviour(faults="cuMemAlloc_v2@2=2,cuCtxSynchronize=719"))
    with driver(sim) as cuda:
        cuda.open()
        results = [cuda.call("cuMemAlloc_v2", OUT, 4 * MIB)[0] for _ in range(3)]
        assert results == [0, 2, 0]
        assert state.used(sim.state) == CONTEXT + 8 * MIB
        assert [cuda.call("cuCtxSynchronize")[0] for _ in range(2)] == [719, 719]


def test_calls_fail_and_wait_as_the_environment_says(sim: Sim) -> None:
    """Even before cuInit; late calls are late, and do what they do."""
    with driver(sim, GPUPORTION_SIM_FAULTS="cuInit@1=999,cuMemAlloc_v2@1+20000us") as cuda:
        assert cuda.call("cuInit", 0)[0] == 999
        cuda.open()
        before = time.monotonic()
        cuda.alloc(4 * MIB)
        assert time.monotonic() - before >= 0.02
        assert state.used(sim.state) == CONTEXT + 4 * MIB


@pytest.mark.parametrize(
    "rules", ["malloc=2", "cuInit@0=2", "cuInit=x", "cuInit+5ms", "cuInit,", "cuInit=1," * 40]
)
def test_wrong_rules_are_refused(start: Start, rules: str) -> None:
    """Before anything is made."""
    with pytest.raises(GpuportionError, match="faults"):
        start(behaviour=Behaviour(faults=rules))
