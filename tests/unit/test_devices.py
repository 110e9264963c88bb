"""GPUs as values."""

from __future__ import annotations

from decimal import Decimal

import pytest

from gpuportion.allocator.devices import (
    NOTHING,
    Gpu,
    Held,
    Holding,
    Load,
    Share,
    free,
    matches,
    uuid_bytes,
)
from gpuportion.sizes import MIB


def test_a_uuid_is_the_bytes_that_cuda_gives() -> None:
    """NVML writes it with a prefix; the policy page holds what cuDeviceGetUuid answers."""
    text = "GPU-8a4f9c21-0011-2233-4455-66778899aabb"
    assert uuid_bytes(text) == bytes.fromhex("8a4f9c21 0011 2233 4455 66778899aabb")
    assert uuid_bytes(text.removeprefix("GPU-")) == uuid_bytes(text)
    with pytest.raises(ValueError, match="badly formed"):
        uuid_bytes("GPU-0")


def test_what_is_granted_is_not_free() -> None:
    """Not a byte is left on a full GPU, nor less than none where more is granted than is there by now."""
    gpu = Gpu(0, "GPU-0", "A100", total=1000 * MIB, margin=0)
    for limit, left in ((0, 1000), (999, 1), (1000, 0), (1200, 0)):
        held = [Holding("c", Share("GPU-0", 0, limit * MIB)), Holding("d", Share("GPU-1", 1, 500 * MIB))]
        assert free(gpu, held) == left * MIB
    assert free(gpu, [Holding("c", Share("GPU-0", 0, 1, exclusive=True))]) == 0


def test_what_can_be_granted_is_whole_mebibytes_of_what_is_left() -> None:
    """Less what the driver keeps, strangers hold and is kept back; never less than nothing."""
    gpu = Gpu(0, "GPU-0", "A100", total=10 * MIB + 5, reserved=MIB, unmanaged=2 * MIB, margin=3 * MIB)
    assert gpu.grantable == gpu.promised == 4 * MIB
    full = Gpu(0, "GPU-0", "A100", total=10 * MIB, unmanaged=10 * MIB, margin=MIB)
    assert full.grantable == full.promised == 0


def test_more_is_promised_in_whole_mebibytes() -> None:
    """One and a half times three is four; what one grant may have stays three."""
    gpu = Gpu(0, "GPU-0", "A100", total=3 * MIB, margin=0, overcommit=Decimal("1.5"))
    assert (gpu.grantable, gpu.promised) == (3 * MIB, 4 * MIB)
    assert free(gpu, []) == 3 * MIB
    assert free(gpu, [Holding("c", Share("GPU-0", 0, 2 * MIB))]) == 2 * MIB


def test_what_is_granted_is_added_up_and_taken_off() -> None:
    """Bytes, shares, and those that have the GPU to themselves; after the last one nothing is left."""
    part, whole = Share("GPU-0", 0, 3 * MIB), Share("GPU-0", 0, 5 * MIB, exclusive=True)
    both = NOTHING.changed(part, 1).changed(whole, 1)
    assert both == Load(taken=8 * MIB, shares=2, alone=1)
    assert both.changed(part, -1) == Load(5 * MIB, 1, 1) and both.changed(whole, -1) == Load(3 * MIB, 1, 0)
    assert both.changed(whole, -1).changed(part, -1) == NOTHING
    holdings = [Holding("a", part), Holding("b", Share("GPU-1", 1, MIB)), Holding("c", whole)]
    held = Held.of(holdings)
    assert held.loads == {"GPU-0": both, "GPU-1": Load(MIB, 1)} and list(held.each()) == holdings


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("7", True),
        ("07", True),
        ("8", False),
        ("GPU-8A4F", True),
        ("gpu-8a4f", True),
        ("8a4f", True),
        ("8a4", False),
        ("*a100*", True),
        ("NVIDIA A100", True),
        ("A100", False),
        ("\N{SUPERSCRIPT SEVEN}", False),
        ("", False),
    ],
)
def test_a_gpu_is_meant_by_index_uuid_or_a_glob_of_its_model(word: str, meant: bool) -> None:
    """In any case; a part of a UUID or a model is not enough."""
    assert matches(Gpu(7, "GPU-8a4F", "NVIDIA A100", total=MIB), word) is meant
