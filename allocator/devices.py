"""GPUs, and what is granted of them, as values. Knows nothing of NVML, stores or containers."""

from __future__ import annotations

import uuid as uuids
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from gpuportion.sizes import MIB

MARGIN: Final = 64 * MIB
"""Bytes of each GPU that are never granted: what the driver takes by itself between two readings."""

MINIMUM: Final = 256 * MIB
"""The least that can be granted on a GPU: a CUDA context alone takes about as much."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU as it was last read. Amounts in bytes.

    `reserved` is what the driver keeps, `unmanaged` what processes without a grant hold, `margin` what is
    kept back. `trouble` says why the GPU can serve nobody now; "" means that it can."""

    index: int
    uuid: str
    model: str
    total: int
    reserved: int = 0
    unmanaged: int = 0
    minor: int = 0
    used: int = 0
    margin: int = MARGIN
    trouble: str = ""

    @property
    def grantable(self) -> int:
        """Bytes that all grants on this GPU may add up to, whole MiB."""
        left = self.total - self.reserved - self.unmanaged - self.margin
        return max(0, left - left % MIB)


@dataclass(frozen=True, slots=True)
class Share:
    """A portion of one GPU: `limit` bytes, or all of it (`exclusive`). `context` as in the policy page,
    bytes."""

    uuid: str
    index: int
    limit: int
    exclusive: bool = False
    context: int = 0


@dataclass(frozen=True, slots=True)
class Holding:
    """A share and who has it, as placement and its messages need it."""

    holder: str
    share: Share


def uuid_bytes(uuid: str) -> bytes:
    """The 16 bytes that cuDeviceGetUuid gives, of NVML's `GPU-8a4f...`. ValueError if it is no UUID."""
    return uuids.UUID(uuid.removeprefix("GPU-")).bytes


def free(gpu: Gpu, holdings: Iterable[Holding]) -> int:
    """Bytes of `gpu` that can still be granted, whole MiB."""
    left = gpu.grantable
    for holding in holdings:
        share = holding.share
        if share.uuid == gpu.uuid:
            left -= gpu.total if share.exclusive else share.limit
    return max(0, left)
