"""Calls that fail: refused by the grant, by the driver, or for want of a policy or a ledger."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.native.capped import MIB, OUT_OF_MEMORY, Client, Grant, Simulated
from tests.native.usual_grant import LIMIT


def test_a_refusal_does_not_kill_who_has_nobody_to_hear_it(grant: Grant) -> None:
    """stderr is a pipe that nobody reads any more: writing to it would end the process by SIGPIPE."""
    client = Client(grant.preload()).begin()
    assert client.process.stderr
    client.process.stderr.close()
    assert client("linear 900000000") == (OUT_OF_MEMORY, 0)
    assert client("linear 1000000") == (0, 0)
    client.kill()


def test_bad_calls_get_the_drivers_answer(client: Client) -> None:
    """Nothing of ours stands between a wrong call and the driver's own error."""
    before = client.free_bytes()
    assert client("linear 0") == (1, 0)
    assert client("map 1000") == (1, 0)
    assert client("freesync 7") == (0,)  # cuMemFree(0)
    assert client("retain 9") == (101,)
    assert client("release 9")[0] != 0
    assert before - client.free_bytes() <= 2 * MIB


@pytest.mark.parametrize(
    ("call", "command"),
    [
        ("cuMemAlloc_v2", f"linear {100 * MIB}"),
        ("cuMemAllocManaged", f"managed {100 * MIB}"),
        ("cuMemAllocAsync", f"async {100 * MIB}"),
        ("cuMemAllocPitch_v2", f"2d {1 * MIB} 100"),
        ("cuMemCreate", f"map {100 * MIB}"),
        ("cuCtxCreate_v2", "context 0"),
    ],
)
def test_what_the_driver_refuses_is_not_charged(grant: Grant, call: str, command: str) -> None:
    """Its own error comes through, and the room that was held for it is there again."""
    client = Client({**grant.preload(), "GPUPORTION_SIM_FAULTS": f"{call}=719"}).begin()
    before = client.free_bytes()
    for _ in range(3):
        assert client(command) == (719, 0)
    assert before - client.free_bytes() <= 2 * MIB
    client.end()


def test_a_free_that_the_driver_refuses_changes_nothing(grant: Grant) -> None:
    """The memory is still there, and so is its charge; the next free gives it back."""
    client = Client({**grant.preload(), "GPUPORTION_SIM_FAULTS": "cuMemFree_v2@1=719"}).begin()
    before = client.free_bytes()
    assert client(f"linear {100 * MIB}") == (0, 0)
    assert client("free 0") == (719,)
    assert client.free_bytes() == before - 100 * MIB
    assert client("free 0") == (0,)
    assert client.free_bytes() == before
    client.end()


@pytest.mark.parametrize("command", ["linear", "managed", "async", "map", "2d 1"])
@pytest.mark.parametrize("size", [2**64 - 1, 2**63, 2**48])
def test_absurd_sizes_are_refused_not_wrapped_round(client: Client, command: str, size: int) -> None:
    """No arithmetic of ours turns a huge request into a small one."""
    assert client(f"{command} {size}")[0] != 0
    assert client(f"linear {600 * MIB}") == (0, 0)


def test_before_init_the_driver_speaks(grant: Grant) -> None:
    """Calls too early get the driver's NOT_INITIALIZED, and nothing is charged or said."""
    client = Client(grant.preload())
    assert client("retain 0") == (3,)
    assert client("linear 100") == (3, 0)
    assert client("version")[0] == 0
    assert client.end() == ""


def test_without_a_policy_there_is_no_gpu(driver: Simulated, tmp_path: Path) -> None:
    """Fails closed: CUDA_ERROR_NO_DEVICE, and one line that says why."""
    grant = driver.grant(LIMIT, name="closed")
    (grant.folder / "policy").unlink()
    client = Client(grant.preload())
    assert client("init") == (100,)
    assert client("retain 0") == (100,)
    errors = client.end()
    assert errors.count("GP203") == 1
    assert "there is no policy" in errors


@pytest.mark.parametrize("content", [b"", b"\0" * 4096, b"garbage" * 600])
def test_a_broken_policy_is_no_policy(driver: Simulated, content: bytes) -> None:
    """What is there but not sound is not taken for "no limit"."""
    grant = driver.grant(LIMIT, name="broken")
    (grant.folder / "policy").write_bytes(content)
    client = Client(grant.preload())
    assert client("init") == (100,)
    assert "the policy cannot be used" in client.end()


def test_without_a_ledger_nothing_is_granted(driver: Simulated) -> None:
    """The driver answers, but there is no account to allocate from."""
    grant = driver.grant(LIMIT, name="no_ledger")
    (grant.folder / "ledger").unlink()
    client = Client(grant.preload())
    assert client("init") == (0,)
    assert client("retain 0") == (OUT_OF_MEMORY,)
    assert "ledger cannot be opened" in client.end()


def test_refusals_are_told_once_a_second(client: Client) -> None:
    """A loop that keeps asking does not fill the log; what was kept back is counted."""
    for _ in range(200):
        assert client("linear 900000000") == (OUT_OF_MEMORY, 0)
    assert client.end().count("GP201") <= 3
