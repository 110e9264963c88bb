"""What a context takes counts with it: itself, and the memory behind its limits."""

from __future__ import annotations

import pytest

from tests.native.capped import MIB, OUT_OF_MEMORY, Client, Simulated
from tests.native.usual_grant import CONTEXT


def test_a_context_counts_before_it_is_made(driver: Simulated) -> None:
    """A grant with no room for a context has none."""
    grant = driver.grant(300 * MIB, context=CONTEXT, name="narrow")
    client = Client(grant.preload()).begin()
    assert client.free_bytes() == 76 * MIB
    assert client("context 0") == (OUT_OF_MEMORY, 0)
    assert client("dropcontext 0") == (0,)
    assert client("context 0") == (0, 0)
    assert client.free_bytes() == 76 * MIB
    client.end()


def test_what_a_context_held_goes_with_it(client: Client) -> None:
    """cuCtxDestroy and a reset free all that the context had allocated."""
    before = client.free_bytes()
    assert client("context 0") == (0, 0)
    assert client(f"linear {100 * MIB}") == (0, 1)
    assert client("linear 1000") == (0, 2)
    assert client("free 0") == (0,)
    assert client("retain 0") == (0,)
    assert before - client.free_bytes() <= 2 * MIB
    assert client(f"linear {500 * MIB}") == (0, 3)
    assert client("reset 0") == (0,)
    assert client("retain 0") == (0,)
    assert before - client.free_bytes() <= 2 * MIB


def test_a_detached_context_takes_what_it_held_with_it(client: Client) -> None:
    """cuCtxDetach, by which older programs end their contexts."""
    before = client.free_bytes()
    assert client("context 0") == (0, 0)
    assert client(f"linear {100 * MIB}") == (0, 1)
    assert client("detach 0") == (0,)
    assert client("retain 0") == (0,)
    assert before - client.free_bytes() <= 2 * MIB


STACK, PRINTF, HEAP = 0, 1, 2


PAGE = 2 * MIB


THREADS = 108 * 2048  # that an A100 keeps at once: each has a stack


@pytest.mark.parametrize(
    ("limit", "at_first", "each"), [(STACK, 1024, THREADS), (PRINTF, 1 * MIB, 1), (HEAP, 8 * MIB, 1)]
)
def test_memory_behind_a_contexts_limits_counts(client: Client, limit: int, at_first: int, each: int) -> None:
    """malloc in kernels, their stacks and printf take device memory that no allocation shows; in whole pages."""
    before = client.free_bytes()
    assert client(f"setlimit {limit} {2000 * MIB // each}") == (OUT_OF_MEMORY,)
    assert client.free_bytes() == before
    assert client(f"setlimit {limit} {at_first + 400 * MIB // each}") == (0,)
    assert before - client.free_bytes() == -(-(400 * MIB // each * each) // PAGE) * PAGE
    assert client(f"linear {500 * MIB}") == (OUT_OF_MEMORY, 0)
    assert client(f"setlimit {limit} {at_first + 200 * MIB // each}") == (0,)
    assert before - client.free_bytes() == -(-(200 * MIB // each * each) // PAGE) * PAGE
    assert client(f"setlimit {limit} 1") == (0,)
    assert client.free_bytes() == before
    assert client("setlimit 99 1000000000") == (215,)
    assert client.free_bytes() == before


def test_memory_behind_limits_goes_with_the_context(client: Client) -> None:
    """And is not given back twice."""
    before = client.free_bytes()
    assert client("context 0") == (0, 0)
    assert client(f"setlimit {HEAP} {300 * MIB}") == (0,)
    assert client("free 0") == (0,)
    assert client("retain 0") == (0,)
    assert client.free_bytes() == before
    assert client(f"setlimit {HEAP} {300 * MIB}") == (0,)
    assert client("reset 0") == (0,)
    assert client("retain 0") == (0,)
    assert client.free_bytes() == before
