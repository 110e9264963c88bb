"""GPUs, and what is granted of them, as values. Knows nothing of NVML, stores or containers."""

from __future__ import annotations

import functools
import uuid as uuids
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from fnmatch import fnmatchcase
from typing import Final, Protocol

from gpuportion.allocator.mig.portion import MigPortion
from gpuportion.sizes import MIB

MARGIN: Final = 64 * MIB
"""Bytes of each GPU that are never granted: what the driver takes by itself between two readings."""

ONCE: Final = Decimal(1)

MINIMUM: Final = 256 * MIB
"""The least that can be granted on a GPU: a CUDA context alone takes about as much."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU as it was last read. Amounts in bytes.

    `reserved` is what the driver keeps, `unmanaged` what processes without a grant hold, `unaccounted` what of that no
    process is listed for, `margin` what is kept back. `overcommit`: how many times over its memory may be granted.
    `links`: how well it is linked to other GPUs, by their UUID; larger is better (links.py). `trouble` says why the GPU
    can serve nobody now; "" means that it can."""

    index: int
    uuid: str
    model: str
    total: int
    reserved: int = 0
    unmanaged: int = 0
    unaccounted: int = 0
    minor: int = 0
    used: int = 0
    margin: int = MARGIN
    trouble: str = ""
    overcommit: Decimal = ONCE
    links: Mapping[str, int] = field(default_factory=dict)

    @property
    def grantable(self) -> int:
        """Bytes that one grant on this GPU may have, whole MiB: what is there."""
        left = self.total - self.reserved - self.unmanaged - self.margin
        return max(0, left - left % MIB)

    @property
    def promised(self) -> int:
        """Bytes that all grants on this GPU may add up to, whole MiB: more than is there by overcommit alone."""
        if self.overcommit == ONCE:
            return self.grantable
        most = int(self.grantable * self.overcommit)
        return most - most % MIB


@dataclass(frozen=True, slots=True)
class Share:
    """A portion of one GPU: `limit` bytes, or all of it (`exclusive`). `context` as in the policy page,
    bytes. `mig`: the instance that it is, where it is one; `limit` is then what that has. `tolerated`: bytes that were
    held when `limit` was lowered below them; nothing is ended for holding these."""

    uuid: str
    index: int
    limit: int
    exclusive: bool = False
    context: int = 0
    mig: MigPortion | None = None
    tolerated: int = 0


@dataclass(frozen=True, slots=True)
class Load:
    """What is granted of one GPU: bytes, how many shares that is, and how many of these have it to themselves."""

    taken: int = 0
    shares: int = 0
    alone: int = 0

    def changed(self, share: Share, sign: int) -> Load:
        """With one share more (1) or less (-1)."""
        return Load(
            self.taken + sign * share.limit, self.shares + sign, self.alone + sign * int(share.exclusive)
        )


NOTHING: Final = Load()


@dataclass(frozen=True, slots=True)
class Holding:
    """A share and who has it, as messages need it."""

    holder: str
    share: Share


@dataclass(frozen=True, slots=True)
class Held:
    """All that is granted on a node: sums by the GPU's UUID, and each holding, which only a refusal looks at."""

    loads: Mapping[str, Load]
    each: Callable[[], Iterable[Holding]]

    @classmethod
    def of(cls, holdings: Sequence[Holding]) -> Held:
        loads: dict[str, Load] = {}
        for holding in holdings:
            uuid = holding.share.uuid
            loads[uuid] = loads.get(uuid, NOTHING).changed(holding.share, 1)
        return cls(loads, lambda: holdings)

    def load(self, gpu: Gpu) -> Load:
        return self.loads.get(gpu.uuid, NOTHING)


@functools.lru_cache(maxsize=64)
def uuid_bytes(uuid: str) -> bytes:
    """The 16 bytes that cuDeviceGetUuid gives, of NVML's `GPU-8a4f...`. ValueError if it is no UUID."""
    return uuids.UUID(uuid.removeprefix("GPU-")).bytes


class Named(Protocol):
    """Whatever a user can point at as a GPU."""

    @property
    def index(self) -> int: ...
    @property
    def uuid(self) -> str: ...
    @property
    def model(self) -> str: ...


def matches(gpu: Named, word: str) -> bool:
    """Whether a word of GPU_SELECT means this GPU: its index, its UUID, or a glob of its model, in any case."""
    if word.isascii() and word.isdigit():
        return gpu.index == int(word)
    uuid = gpu.uuid.lower()
    return word.lower() in (uuid, uuid.removeprefix("gpu-")) or fnmatchcase(gpu.model.lower(), word.lower())


class Sized(Protocol):
    """A GPU by what can be granted on it, as in Gpu."""

    @property
    def grantable(self) -> int: ...
    @property
    def promised(self) -> int: ...


def room(gpu: Sized, load: Load) -> int:
    """Bytes of `gpu` that one more grant can have, whole MiB."""
    return 0 if load.alone else max(0, min(gpu.promised - load.taken, gpu.grantable))


def free(gpu: Gpu, holdings: Sequence[Holding]) -> int:
    """`room` beside these."""
    return room(gpu, Held.of(holdings).load(gpu))
