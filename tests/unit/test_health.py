"""Which GPUs can serve nobody, by XIDs and by what the driver says must be done."""

from __future__ import annotations

import pytest

from gpuportion.allocator.health import ACTIONS, HARMLESS, QUIET, SETTLED, Health, called, is_harmless

GPU, OTHER = "GPU-0", "GPU-1"


@pytest.mark.parametrize("xid", sorted(HARMLESS))
def test_what_a_program_did_to_itself_takes_no_gpu_out(xid: int) -> None:
    """Whether the driver tells what must be done or not."""
    for action in (None, 0):
        assert Health().update([(GPU, xid)], {GPU: action}, 0) == {}
        assert is_harmless(xid)


@pytest.mark.parametrize("xid", [48, 62, 64, 74, 79, 95, 119, 120, 144, 999])
def test_another_xid_takes_its_gpu_out_and_no_other(xid: int) -> None:
    """Also one that nobody here knows: NVIDIA adds new ones."""
    troubles = Health().update([(GPU, xid)], {GPU: None, OTHER: None}, 0)
    assert list(troubles) == [GPU] and f"XID {xid}" in troubles[GPU]


def test_the_driver_says_when_a_gpu_is_well() -> None:
    """Out as long as something must be done, and a moment longer."""
    health = Health()
    assert health.update([(GPU, 79)], {GPU: 1}, 0)[GPU] == (
        "it had XID 79 (the GPU has fallen off the bus); the driver says: it needs a reset: "
        "end what uses it, then nvidia-smi --gpu-reset"
    )
    assert GPU in health.update([], {GPU: 1}, 10 * QUIET)
    assert health.update([], {GPU: 0}, 10 * QUIET) == {}
    assert health.update([(GPU, 48)], {GPU: 0}, 20 * QUIET) == {
        GPU: "it had XID 48 (double-bit memory error)"
    }
    assert GPU in health.update([], {GPU: 0}, 20 * QUIET + SETTLED - 1)
    assert health.update([], {GPU: 0}, 20 * QUIET + SETTLED) == {}


def test_without_the_drivers_word_time_must_pass() -> None:
    """Since the last such XID; harmless ones do not count. What is to be waited for is said."""
    health = Health()
    assert "10 minutes" in health.update([(GPU, 79)], {GPU: None}, 0)[GPU]
    assert GPU in health.update([(GPU, 48)], {GPU: None}, QUIET - 1)
    assert "XID 48" in health.update([(GPU, 13)], {GPU: None}, QUIET)[GPU]
    assert GPU in health.update([], {GPU: None}, 2 * QUIET - 1.5)
    assert health.update([], {GPU: None}, 2 * QUIET - 1) == {}


def test_a_gpu_that_does_not_answer_is_not_forgotten() -> None:
    """While NVML has an error for it, it has no action; its XID counts on when it is there again."""
    health = Health()
    health.update([(GPU, 79)], {GPU: None}, 0)
    assert health.update([], {}, 1) == {}
    assert GPU in health.update([], {GPU: None}, 2)


@pytest.mark.parametrize(("action", "told"), [*ACTIONS.items(), (77, "recovery action 77")])
def test_the_drivers_word_alone_takes_a_gpu_out(action: int, told: str) -> None:
    """The XID may have been before our time; a newer driver may have other words."""
    assert Health().update([], {GPU: action, OTHER: 0}, 0) == {GPU: f"the driver says: {told}"}


def test_an_xid_is_called_by_number_and_name() -> None:
    """A number where there is no name."""
    assert called(79) == "XID 79 (the GPU has fallen off the bus)"
    assert called(13) == "XID 13 (graphics engine exception)"
    assert called(999) == "XID 999"
