"""libcap_mem on a driver that says what it is told: for what the simulated one does not have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.native import capped, scripted
from tests.native.capped import MIB, OUT_OF_MEMORY
from tests.support import native

LIMIT = 1000 * MIB


@pytest.fixture
def run(tmp_path: Path) -> Callable[[str], Any]:
    """Runs a script in the grant; its answers."""
    return _runner(tmp_path, context=0)


def _runner(folder: Path, context: int) -> Callable[[str], Any]:
    built = Path(native.built("cap_partial_driver", "libcap_mem")).with_name("libcap_partial_driver.so")
    grant = capped.make_grant(folder, str(built), "/nowhere", [f"{'11' * 16}:{LIMIT}:{context}"])

    return lambda script: scripted.run(grant, script)


DEVICE, HOST, NOWHERE, PINNED, MANAGED = 1, 2, 0, 1, 2


@pytest.mark.parametrize("made", ["pool", "default_pool"])
@pytest.mark.parametrize(
    ("kind", "where", "counts"),
    [
        (PINNED, DEVICE, True),
        (PINNED, HOST, False),
        (MANAGED, DEVICE, True),
        (MANAGED, HOST, True),
        (MANAGED, NOWHERE, True),
    ],
)
def test_a_pool_counts_where_its_memory_can_get_to_the_gpu(
    run: Callable[[str], Any], made: str, kind: int, where: int, counts: bool
) -> None:
    """Managed memory in full, wherever it prefers to live; the host's own never."""
    script = f"""
p = {made}({kind}, {where})
say(take(p, 300 * MIB)); say(used()); say(take(p, 800 * MIB)); say(used())
"""
    assert run(script) == ([0, 300, OUT_OF_MEMORY, 300] if counts else [0, 0, 0, 0])


def test_memory_that_was_mapped_into_an_array_stays_charged(run: Callable[[str], Any]) -> None:
    """A sparse array keeps it when the handle is gone."""
    script = """
def handle(): return made(cu.cuMemCreate, u64(256 * MIB), c.byref(Props(1, 0, 1)), u64(0))[1]
kept, dropped = handle(), handle()
say(cu.cuMemMapArrayAsync(c.byref(Tiles(operation=1, handle=kept)), 1, None)); say(used())
say(cu.cuMemRelease(dropped)); say(cu.cuMemRelease(kept)); say(used())
"""
    assert run(script) == [0, 512, 0, 0, 256]


def test_green_contexts_cost_nothing_of_their_own(tmp_path: Path) -> None:
    """They are views of the primary one; a program that makes many does not use its grant up."""
    script = """
for n in range(100):
    green, context = u64(0x5000 + 0x100 * n), u64()
    cu.cuCtxFromGreenCtx(c.byref(context), green)
    cu.cuCtxSetCurrent(context)
    _, at = made(cu.cuMemAlloc_v2, u64(4 * MIB))
    if n % 25 == 0: say(used())
    cu.cuMemFree_v2(at)
    cu.cuGreenCtxDestroy(green)
cu.cuCtxSetCurrent(None)
say(used())
"""
    assert _runner(tmp_path, context=100 * MIB)(script) == [4, 4, 4, 4, 100]


def test_a_function_is_met_behind_any_address_that_a_lookup_gives(run: Callable[[str], Any]) -> None:
    """Some drivers answer cuGetProcAddress with another address than that of their export."""
    script = """
found, status = c.c_void_p(), c.c_int()
say(cu.cuGetProcAddress_v2(b"cuMemAlloc", c.byref(found), 12000, u64(0), c.byref(status)))
alloc = c.CFUNCTYPE(c.c_int, c.c_void_p, c.c_size_t)(found.value)
for mib in 300, 800: say(alloc(c.byref(u64()), mib * MIB)); say(used())
"""
    assert run(script) == [0, 0, 300, OUT_OF_MEMORY, 300]
