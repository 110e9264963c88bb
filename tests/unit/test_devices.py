"""GPUs as values."""

from __future__ import annotations

import pytest

from gpuportion.allocator.devices import Gpu, Holding, Share, free, uuid_bytes
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
