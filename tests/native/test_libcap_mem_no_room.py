"""A context for which the grant has no room: refused before it is made, or when it is met where it was made unseen."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from gpuportion.allocator import pages
from gpuportion.allocator.page_values import RefusalNote
from tests.native import capped, scripted
from tests.native.capped import MIB, OUT_OF_MEMORY, Grant, Simulated
from tests.simgpu.driver import OUT, SUCCESS, Driver

CONTEXT, LIMIT = 224, 200
"""MiB. What a grant as these is short of for a context is 24."""
RESOURCE = {"hex": bytes(144).hex()}


def _plain(name: str, *arguments: object) -> Callable[[Driver], tuple[int, ...]]:
    return lambda cuda: cuda.call(name, *arguments)


def _green(cuda: Driver) -> tuple[int, ...]:
    """Of all multiprocessors. Nothing of the device is in use before."""
    whole = {"hex": cuda.ask(call="cuDeviceGetDevResource", args=[0, RESOURCE, 1])["after"][0]}
    return cuda.call("cuGreenCtxCreate", OUT, cuda.do("cuDevResourceGenerateDesc", OUT, whole, 1), 0, 1)


MAKERS: dict[str, Callable[[Driver], tuple[int, ...]]] = {
    "cuCtxCreate": _plain("cuCtxCreate", OUT, 0, 0),
    "cuCtxCreate_v2": _plain("cuCtxCreate_v2", OUT, 0, 0),
    "cuCtxCreate_v3": _plain("cuCtxCreate_v3", OUT, 0, 0, 0, 0),
    "cuCtxCreate_v4": _plain("cuCtxCreate_v4", OUT, 0, 0, 0),
    "cuDevicePrimaryCtxRetain": _plain("cuDevicePrimaryCtxRetain", OUT, 0),
    "cuGreenCtxCreate": _green,
}


@pytest.fixture
def driver(tmp_path: Path) -> Simulated:
    return capped.simulate(tmp_path)


@pytest.fixture
def grant(driver: Simulated) -> Grant:
    return driver.grant(LIMIT * MIB, context=CONTEXT * MIB)


def notes(grant: Grant) -> tuple[RefusalNote, ...]:
    return pages.read_ledger(str(grant.folder / "ledger")).notes


def used(grant: Grant) -> int:
    """MiB that its processes count."""
    return pages.read_ledger(str(grant.folder / "ledger")).gpus[0].used // MIB


def widen(grant: Grant, mib: int) -> None:
    """As the daemon does it."""
    policy = str(grant.folder / "policy")
    pages.set_limit(policy, pages.read_policy(policy).gpus[0].uuid, mib * MIB)


@pytest.mark.parametrize("name", MAKERS)
def test_it_is_refused_before_it_is_made(
    name: str, driver: Simulated, grant: Grant, capfd: pytest.CaptureFixture[str]
) -> None:
    """With a sentence and a note of which call it was; nothing is taken. Where it fits to the byte, it is made."""
    with Driver(grant.preload()) as cuda:
        cuda.do("cuInit", 0)
        assert MAKERS[name](cuda) == (OUT_OF_MEMORY, 0)
        assert driver.used() == 0 and used(grant) == 0
        (note,) = notes(grant)
        assert (note.asked, note.used, note.limit) == (CONTEXT * MIB, 0, LIMIT * MIB)
        assert note.pid == cuda.process.pid
        assert note.api == name.removesuffix("_v2").removesuffix("_v3").removesuffix("_v4")[:23]
        assert capfd.readouterr().err == (
            f"GP201 gpuportion: {CONTEXT} MiB refused: 0 of this container's {LIMIT} MiB are in use;"
            " CUDA reports out of memory.\n"
        )
        widen(grant, CONTEXT)
        assert MAKERS[name](cuda)[0] == SUCCESS
        assert driver.used() == CONTEXT * MIB and used(grant) == CONTEXT
        assert len(notes(grant)) == 1


def test_a_green_context_keeps_the_primary_one_counted(grant: Grant) -> None:
    """However it came to be; gone with the last that holds it."""
    widen(grant, 2 * CONTEXT)
    with Driver(grant.preload()) as cuda:
        cuda.do("cuInit", 0)
        first, second = _green(cuda)[1], _green(cuda)[1]
        assert used(grant) == CONTEXT
        cuda.do("cuDevicePrimaryCtxRetain", OUT, 0)
        for green in first, second:
            cuda.do("cuGreenCtxDestroy", green)
            assert used(grant) == CONTEXT
        third = _green(cuda)[1]
        cuda.do("cuDevicePrimaryCtxRelease_v2", 0)
        cuda.do("cuCtxSetCurrent", cuda.do("cuCtxFromGreenCtx", OUT, third))
        cuda.do("cuMemFree_v2", cuda.alloc(10 * MIB))
        assert used(grant) == CONTEXT
        cuda.do("cuGreenCtxDestroy", third)
        assert used(grant) == 0


UNSEEN = """
real = c.CDLL({driver!r})  # as NVIDIA's runtime: by a way that the library does not see
context = u64()
assert real.cuInit(0) == 0 and real.cuDevicePrimaryCtxRetain(c.byref(context), 0) == 0
assert real.cuCtxSetCurrent(context) == 0
free, total = u64(), u64()
def info(): return cu.cuMemGetInfo_v2(c.byref(free), c.byref(total))
def seen(): assert info() == 0; return [free.value // MIB, total.value // MIB]
"""
FIRST = {
    "linear": "made(cu.cuMemAlloc_v2, u64(1000))[0]",
    "pitched": "made(cu.cuMemAllocPitch_v2, c.byref(u64()), u64(10), u64(10), 4)[0]",
    "managed": "made(cu.cuMemAllocManaged, u64(1000), 1)[0]",
    "stream-ordered": "made(cu.cuMemAllocAsync, u64(1000), None)[0]",
    "array": "array(10, 10)[0]",
    "mipmap": "mipmap(10, 10, 2)[0]",
}


def meet(driver: Simulated, grant: Grant, script: str) -> object:
    return scripted.run(grant, UNSEEN.format(driver=f"{driver.sim.lib}/libcuda.so.1") + script)


@pytest.mark.parametrize("first", FIRST)
def test_one_that_was_made_unseen_is_refused_when_it_is_met(
    first: str, driver: Simulated, grant: Grant
) -> None:
    """By the first call that allocates, with the context's own size; from then on it counts, fitting or not."""
    script = f"""
call = lambda: {FIRST[first]}
say(call()); say(seen()); say(call())
"""
    assert meet(driver, grant, script) == [OUT_OF_MEMORY, [0, LIMIT], OUT_OF_MEMORY]
    met, *later = notes(grant)
    assert (met.api, met.asked, met.used) == ("a context found", CONTEXT * MIB, 0)
    assert [note.used // MIB for note in later] == [CONTEXT]


def test_one_that_fits_when_it_is_met_is_counted(driver: Simulated, grant: Grant) -> None:
    """And nothing is refused."""
    widen(grant, 300)
    script = "say(made(cu.cuMemAlloc_v2, u64(50 * MIB))[0]); say(seen())"
    assert meet(driver, grant, script) == [SUCCESS, [300 - CONTEXT - 50, 300]]
    assert notes(grant) == ()


def test_what_asks_for_nothing_is_answered(driver: Simulated, grant: Grant) -> None:
    """cuMemGetInfo tells that nothing is free, a limit is set as far as it takes nothing; the refusal is noted once."""
    script = """
say(seen()); say(cu.cuCtxSetLimit(0, u64(1))); say(made(cu.cuMemAlloc_v2, u64(1000))[0]); say(seen())
"""
    assert meet(driver, grant, script) == [[0, LIMIT], 0, OUT_OF_MEMORY, [0, LIMIT]]
    assert [note.api for note in notes(grant)] == ["a context found", "cuMemAlloc"]


def test_room_that_comes_later_is_had(driver: Simulated, grant: Grant) -> None:
    """A refused process goes on when its grant grows: the context is counted once."""
    grow = f"""
sys.path[:0] = {[os.getcwd()]!r}
from tests.native.test_libcap_mem_no_room import Grant, widen
from pathlib import Path
widen(Grant(Path({str(grant.folder)!r})), 300)
"""
    script = "say(made(cu.cuMemAlloc_v2, u64(1000))[0])" + grow
    script += "say(made(cu.cuMemAlloc_v2, u64(50 * MIB))[0]); say(seen())"
    assert meet(driver, grant, script) == [OUT_OF_MEMORY, SUCCESS, [300 - CONTEXT - 50, 300]]
