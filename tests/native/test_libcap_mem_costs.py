"""libcap_mem on drivers whose costs are not those that it begins with: counted once they show, or undone."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpuportion.allocator import pages
from tests.native import capped
from tests.simgpu.driver import MIB, OUT, OUT_OF_MEMORY, SUCCESS, Driver


def client(folder: Path, limit: int, **costs: int) -> Driver:
    driver = capped.simulate(folder, "a100-80gb", None, None, context=0, **costs)
    return Driver(driver.grant(limit).preload()).open()


def test_a_slab_larger_than_a_page_counts_as_what_it_is(tmp_path: Path) -> None:
    """It shows at a process's first small block. Blocks in one piece of it count once, and one is kept in advance."""
    with client(tmp_path, 100 * MIB, slab=8 * MIB) as cuda:
        blocks = [cuda.alloc(1000) for _ in range(100)]
        assert cuda.info() == (84 * MIB, 100 * MIB)
        for block in blocks:
            cuda.free(block)
        assert cuda.info() == (92 * MIB, 100 * MIB)
        assert cuda.call("cuMemAlloc_v2", OUT, 100 * MIB)[0] == SUCCESS


@pytest.mark.parametrize(
    ("costs", "call"),
    [
        ({"slab": 8 * MIB}, ["cuMemAlloc_v2", OUT, 1000]),
        ({"pool_chunk": 1024 * MIB}, ["cuMemAllocAsync", OUT, 1000, 0]),
    ],
)
def test_what_turns_out_too_large_is_undone_and_leaves_no_address(
    tmp_path: Path, costs: dict[str, int], call: list[object]
) -> None:
    """The grant has room for what was expected, not for what the driver took."""
    limit = 64 * MIB if "pool_chunk" in costs else 6 * MIB
    with client(tmp_path, limit, **costs) as cuda:
        for _ in range(3):
            assert cuda.call(str(call[0]), *call[1:]) == (OUT_OF_MEMORY, 0)
        assert cuda.info() == (limit, limit)
        assert cuda.call("cuMemAlloc_v2", OUT, limit)[0] == SUCCESS


def test_what_pools_give_up_when_a_plain_block_is_freed_in_a_stream_is_free(tmp_path: Path) -> None:
    """The stream is waited for then, and what pools keep beyond their threshold goes."""
    with client(tmp_path, 200 * MIB) as cuda:
        plain = cuda.alloc(10 * MIB)
        cuda.do("cuMemFreeAsync", cuda.do("cuMemAllocAsync", OUT, 50 * MIB, 0), 0)
        cuda.do("cuMemFreeAsync", plain, 0)
        assert pages.read_ledger(str(tmp_path / "grant" / "ledger")).gpus[0].used == 0
        assert cuda.info() == (200 * MIB, 200 * MIB)
