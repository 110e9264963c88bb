"""The state file of the simulated devices: made and read here, used by the simulated libraries.

    0        text: "gpuportion-sim 2", then "key value" lines
    64 KiB   what processes hold; state/state.h says how it changes

The offsets below are those of `struct sim_shared` there, which a test holds. Nothing here knows CUDA or NVML.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

VERSION: Final = "gpuportion-sim 2\n"
TEXT: Final = 65536
UNIT: Final = 65536
DEVICES: Final = 16
SLOTS: Final = 4096
INSTANCES: Final = 15
"""Ids of GPU instances on a device."""
COMPUTES: Final = 8
"""Ids of compute instances in one of them."""
ACCOUNTS: Final = DEVICES * (1 + INSTANCES)
"""Memory that is taken from: the devices', then that of their GPU instances."""
HIGH_AT: Final = TEXT
TOTAL_AT: Final = HIGH_AT + 64
SLOT_AT: Final = TOTAL_AT + 64 * ACCOUNTS
MIG_AT: Final = SLOT_AT + 64 * SLOTS
CELL_AT: Final = MIG_AT + DEVICES * (64 + INSTANCES * (16 + COMPUTES * 32))
INTENT_AT: Final = CELL_AT + 8 * ACCOUNTS * SLOTS
SIZE: Final = INTENT_AT + 8 * ACCOUNTS * SLOTS
LIFE_AT: Final = 1 << 30
USE_AT: Final = LIFE_AT + SLOTS
CHANGE_AT: Final = USE_AT + ACCOUNTS * COMPUTES

OFD_SETLKW: Final = 38
_FLOCK: Final = struct.Struct("hhqqi4x")
_OFD_GETLK: Final = 36


@dataclass(frozen=True, slots=True)
class Holder:
    """What one living process, or memory that several share, holds of one device."""

    device: int
    slot: int
    pid: int
    """In its own pid namespace."""
    pid_namespace: int
    """Inode; 0 where it is not known."""
    bytes: int
    instance: int | None = None
    """Id of the GPU instance whose memory it is."""


def make(path: str, settings: Mapping[str, object]) -> None:
    """Write a new state file, whole before it has its name. Anybody may use it, as a driver's nodes."""
    text = (VERSION + "".join(f"{key} {value}\n" for key, value in settings.items())).encode()
    if len(text) >= TEXT:
        raise ValueError(f"{len(text)} bytes of settings do not fit into {TEXT}")
    new = f"{path}.new"
    fd = os.open(new, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    try:
        os.fchmod(fd, 0o666)
        os.write(fd, text)
        os.ftruncate(fd, SIZE)
    finally:
        os.close(fd)
    os.rename(new, path)


def is_current(path: str) -> bool:
    """Whether a state file is there that is one of this version."""
    try:
        with open(path, "rb") as file:
            return file.read(len(VERSION)) == VERSION.encode()
    except FileNotFoundError:
        return False


def settings(path: str) -> dict[str, str]:
    """The text of a state file. ValueError if it is none."""
    with open(path, "rb") as file:
        text = file.read(TEXT).rstrip(b"\0").decode()
    if not text.startswith(VERSION):
        raise ValueError(f"{path} is not a state of this version")
    lines = (line.partition(" ") for line in text.splitlines()[1:])
    return {key: value for key, _, value in lines}


def holders(path: str) -> list[Holder]:
    """Who holds what, now: the truth, apart from what the libraries say."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with mmap.mmap(fd, SIZE, mmap.MAP_SHARED, mmap.PROT_READ) as view:
            return list(_holders(fd, view))
    finally:
        os.close(fd)


def read(path: str) -> list[dict[int, int]]:
    """The same per device, bytes by pid; equal pids of several pid namespaces are added up."""
    devices: list[dict[int, int]] = [{} for _ in range(int(settings(path)["devices"]))]
    for holder in holders(path):
        taken = devices[holder.device]
        taken[holder.pid] = taken.get(holder.pid, 0) + holder.bytes
    return devices


def used(path: str, device: int = 0) -> int:
    """Bytes that the living hold of a device."""
    return sum(read(path)[device].values())


def charged(path: str, device: int = 0) -> int:
    """Bytes in a device's own total, not its instances': what is held, or was by the dead and is not needed."""
    with open(path, "rb") as file:
        file.seek(TOTAL_AT + 64 * device)
        (word,) = struct.unpack("<Q", file.read(8))
    return (int(word) >> 40) * UNIT


def _holders(fd: int, view: mmap.mmap) -> Iterator[Holder]:
    (high,) = struct.unpack_from("<Q", view, HIGH_AT)
    charged = [a for a in range(ACCOUNTS) if struct.unpack_from("<Q", view, TOTAL_AT + 64 * a)[0] >> 40]
    for slot in range(min(high, SLOTS)):
        held = {account: _held(view, account, slot) for account in charged}
        if not any(held.values()) or not _alive(fd, slot):
            continue
        pid, namespace = struct.unpack_from("<QQ", view, SLOT_AT + 64 * slot)
        if not pid:
            continue  # who just took the slot has not emptied it yet: what lies there was a dead one's
        for account, size in held.items():
            if size:
                device, instance = _owner(account)
                yield Holder(device, slot, pid, namespace, size, instance)


def _owner(account: int) -> tuple[int, int | None]:
    """Device and GPU instance of an account."""
    return (account, None) if account < DEVICES else divmod(account - DEVICES, INSTANCES)


def _held(view: mmap.mmap, account: int, slot: int) -> int:
    (cell,) = struct.unpack_from("<Q", view, CELL_AT + 8 * (account * SLOTS + slot))
    return (int(cell) >> 40) * UNIT


def living(path: str) -> bool:
    """Whether any process has the driver open."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return _locked(fd, LIFE_AT, SLOTS)
    finally:
        os.close(fd)


def opened(path: str, device: int) -> bool:
    """Whether any process has a device open, or a part of it."""
    first = (DEVICES + device * INSTANCES) * COMPUTES
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return _locked(fd, USE_AT + device, 1) or _locked(fd, USE_AT + first, INSTANCES * COMPUTES)
    finally:
        os.close(fd)


def lock_of(start: int, length: int) -> bytes:
    """A `struct flock` that asks for these bytes."""
    return _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, start, length, 0)


def _alive(fd: int, slot: int) -> bool:
    return _locked(fd, LIFE_AT + slot, 1)


def _locked(fd: int, start: int, length: int) -> bool:
    kind, *_ = _FLOCK.unpack(fcntl.fcntl(fd, _OFD_GETLK, lock_of(start, length)))
    return bool(kind != fcntl.F_UNLCK)
