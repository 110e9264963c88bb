"""GPUs as values."""

from __future__ import annotations

import pytest

from gpuportion.allocator.devices import uuid_bytes


def test_a_uuid_is_the_bytes_that_cuda_gives() -> None:
    """NVML writes it with a prefix; the policy page holds what cuDeviceGetUuid answers."""
    text = "GPU-8a4f9c21-0011-2233-4455-66778899aabb"
    assert uuid_bytes(text) == bytes.fromhex("8a4f9c21 0011 2233 4455 66778899aabb")
    assert uuid_bytes(text.removeprefix("GPU-")) == uuid_bytes(text)
    with pytest.raises(ValueError, match="badly formed"):
        uuid_bytes("GPU-0")
