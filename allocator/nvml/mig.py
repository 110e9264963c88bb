"""MIG by NVML: what a GPU offers and has, and the four acts that change it.

Profiles are read once for a GPU and mode, instances every time. An act raises MigError with what kind of refusal it
was; what is gone already is no error when it is to go. Which instances are whose, nobody here knows."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Iterator
from typing import Any, Final

import pynvml

from gpuportion.allocator.mig.profiles import Engines, Profile
from gpuportion.allocator.mig.seen import Compute, MigReading, Seen
from gpuportion.allocator.nvml.session import connect, disconnect, sentence, tried

FULL, BUSY, GONE, OTHER = "full", "busy", "gone", "other"
KINDS: Final = (
    (pynvml.NVMLError_InsufficientResources, FULL),
    (pynvml.NVMLError_InUse, BUSY),
    (pynvml.NVMLError_NotFound, GONE),
)

MOST_INDEXES: Final = 64
"""Profile indexes that are asked for; the driver says itself where they end."""

SHARED: Final = pynvml.NVML_COMPUTE_INSTANCE_ENGINE_PROFILE_SHARED


class MigError(Exception):
    """NVML refused. `kind`: FULL (no room, or no more of it), BUSY (in use), GONE (is not there) or OTHER."""

    def __init__(self, problem: Exception) -> None:
        self.kind = next((kind for error, kind in KINDS if isinstance(problem, error)), OTHER)
        super().__init__(sentence(problem))


class NamelessError(MigError):
    """There is an instance now, and nobody knows its id."""


class Migs:
    """A session for MIG, by the GPUs' UUIDs. May be used by several threads, one for each GPU."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_open = False
        self._profiles: dict[tuple[str, bool], tuple[Profile, ...]] = {}

    def close(self) -> None:
        with self._lock:
            if self._is_open:
                self._is_open = False
                disconnect()

    # Looking

    def read(self, uuid: str) -> MigReading | None:
        """MIG on this GPU; None where the board or the driver has none. MigError if even that cannot be told."""
        at = time.monotonic()
        device = self._device(uuid)
        modes = tried(pynvml.nvmlDeviceGetMigMode, device)
        if modes is None:
            return None
        mode, pending = (value == 1 for value in modes)
        try:
            profiles = self._profiles_of(device, uuid, mode)
            instances = tuple(_instances(device, profiles)) if mode else ()
        except pynvml.NVMLError as problem:
            return MigReading(mode, pending, at, trouble=sentence(problem))
        return MigReading(mode, pending, at, profiles, instances)

    def instance(self, uuid: str, gi: int) -> Seen | None:
        """One GPU instance; None if it is not there."""
        try:
            handle = pynvml.nvmlDeviceGetGpuInstanceById(self._device(uuid), gi)
            return _seen(handle, pynvml.nvmlGpuInstanceGetInfo(handle))
        except pynvml.NVMLError_NotFound:
            return None
        except pynvml.NVMLError as problem:
            raise MigError(problem) from None

    def memory(self, mig_uuid: str) -> int:
        """Bytes that a MIG device has. MigError if it is not there."""
        try:
            device = pynvml.nvmlDeviceGetHandleByUUID(mig_uuid)
            return int(pynvml.nvmlDeviceGetAttributes(device).memorySizeMB) << 20
        except pynvml.NVMLError as problem:
            raise MigError(problem) from None

    # Acts

    def create_gi(self, uuid: str, profile: int, start: int, size: int) -> int:
        """A GPU instance at this place; its id. NamelessError: it was made, but neither can be told nor be undone."""
        where = pynvml.c_nvmlGpuInstancePlacement_t(start, size)
        try:
            device = self._device(uuid)
            handle = pynvml.nvmlDeviceCreateGpuInstanceWithPlacement(device, profile, ctypes.byref(where))
        except pynvml.NVMLError as problem:
            raise MigError(problem) from None
        try:
            return int(pynvml.nvmlGpuInstanceGetInfo(handle).id)
        except pynvml.NVMLError as problem:
            raise _undone(handle, problem) from None

    def create_ci(self, uuid: str, gi: int, slices: int) -> int:
        """The compute instance that has all `slices` of a GPU instance; its id."""
        try:
            handle = pynvml.nvmlDeviceGetGpuInstanceById(self._device(uuid), gi)
            profile = next((id for id, count in _ci_profiles(handle) if count == slices), None)
            if profile is None:
                raise pynvml.NVMLError_NotSupported
            made = pynvml.nvmlGpuInstanceCreateComputeInstance(handle, profile)
            return int(pynvml.nvmlComputeInstanceGetInfo_v2(made).id)
        except pynvml.NVMLError as problem:
            raise MigError(problem) from None

    def destroy_ci(self, uuid: str, gi: int, ci: int) -> None:
        try:
            handle = pynvml.nvmlDeviceGetGpuInstanceById(self._device(uuid), gi)
            pynvml.nvmlComputeInstanceDestroy(pynvml.nvmlGpuInstanceGetComputeInstanceById(handle, ci))
        except pynvml.NVMLError_NotFound:
            return
        except pynvml.NVMLError as problem:
            raise MigError(problem) from None

    def destroy_gi(self, uuid: str, gi: int) -> None:
        try:
            pynvml.nvmlGpuInstanceDestroy(pynvml.nvmlDeviceGetGpuInstanceById(self._device(uuid), gi))
        except pynvml.NVMLError_NotFound:
            return
        except pynvml.NVMLError as problem:
            raise MigError(problem) from None

    def _device(self, uuid: str) -> Any:
        try:
            with self._lock:
                if not self._is_open:
                    connect()
                    self._is_open = True
            return pynvml.nvmlDeviceGetHandleByUUID(uuid)
        except (pynvml.NVMLError, OSError) as problem:
            if isinstance(problem, pynvml.NVMLError_Uninitialized):
                self._is_open = False
            raise MigError(problem) from None

    def _profiles_of(self, device: Any, uuid: str, mode: bool) -> tuple[Profile, ...]:
        known = self._profiles.get((uuid, mode))
        if not known:
            total = int(pynvml.nvmlDeviceGetMemoryInfo(device).total)
            known = self._profiles[uuid, mode] = tuple(_profiles(device, total))
        return known


def _undone(handle: Any, problem: pynvml.NVMLError) -> MigError:
    """What to raise for an instance that was just made and that the driver does not tell of."""
    try:
        pynvml.nvmlGpuInstanceDestroy(handle)
    except pynvml.NVMLError:
        return NamelessError(problem)
    return MigError(problem)


def _profiles(device: Any, total: int) -> Iterator[Profile]:
    """What the board offers. Drivers before 550 offer nothing while MIG is off."""
    for index in range(MOST_INDEXES):
        try:
            info = _profile_info(device, index)
        except pynvml.NVMLError_NotSupported:
            continue
        except pynvml.NVMLError_InvalidArgument:
            return
        places = _placements(device, int(info.id))
        yield Profile(
            id=int(info.id),
            names=_names(info, index, total),
            memory=int(info.memorySizeMB),
            compute=int(info.sliceCount),
            size=places[0][1] if places else 0,
            starts=tuple(start for start, _ in places),
            most=int(info.instanceCount),
            engines=Engines(
                int(info.decoderCount), int(info.encoderCount), int(info.jpegCount), int(info.ofaCount)
            ),
        )


def _profile_info(device: Any, index: int) -> Any:
    try:
        return pynvml.nvmlDeviceGetGpuInstanceProfileInfo(device, index)
    except pynvml.NVMLError_FunctionNotFound:  # before 470
        return pynvml.nvmlDeviceGetGpuInstanceProfileInfo(device, index, 1)


def _names(info: Any, index: int, total: int) -> tuple[str, ...]:
    """The driver's name, and the one that NVIDIA's tools make of the memory where it is another."""
    eighths = -(-int(info.memorySizeMB) * 8 // (total >> 20))
    gigabytes = round(min(8, eighths) / 8 * -(-total // (1 << 30)))
    own = str(getattr(info, "name", "")).removeprefix("MIG ")
    tail = own[own.index("gb") + 2 :] if "gb" in own else ("+me" if index == WITH_MEDIA else "")
    made = f"{info.sliceCount}g.{gigabytes}gb{tail}"
    return tuple(dict.fromkeys(name for name in (own, made) if name))


WITH_MEDIA: Final = pynvml.NVML_GPU_INSTANCE_PROFILE_1_SLICE_REV1


def _placements(device: Any, profile: int) -> list[tuple[int, int]]:
    """(start, size) of each place."""
    count = ctypes.c_uint()
    pynvml.nvmlDeviceGetGpuInstancePossiblePlacements(device, profile, None, ctypes.byref(count))
    out = (pynvml.c_nvmlGpuInstancePlacement_t * count.value)()
    pynvml.nvmlDeviceGetGpuInstancePossiblePlacements(device, profile, out, ctypes.byref(count))
    return [(int(each.start), int(each.size)) for each in out[: count.value]]


def _instances(device: Any, profiles: tuple[Profile, ...]) -> Iterator[Seen]:
    for profile in profiles:
        out, count = (pynvml.c_nvmlGpuInstance_t * max(1, profile.most))(), ctypes.c_uint()
        pynvml.nvmlDeviceGetGpuInstances(device, profile.id, out, ctypes.byref(count))
        for handle in out[: count.value]:
            try:
                yield _seen(handle, pynvml.nvmlGpuInstanceGetInfo(_plain(handle)))
            except pynvml.NVMLError_NotFound:
                continue  # it went meanwhile


def _plain(handle: Any) -> ctypes.c_void_p:
    """A handle out of an array, as pynvml's functions take it."""
    return ctypes.c_void_p(ctypes.cast(handle, ctypes.c_void_p).value)


def _seen(handle: Any, info: Any) -> Seen:
    found = dict(_computes(handle))
    return Seen(
        id=int(info.id),
        profile=int(info.profileId),
        start=int(info.placement.start),
        size=int(info.placement.size),
        computes=tuple(found[id] for id in sorted(found)),
    )


def _computes(handle: Any) -> Iterator[tuple[int, Compute]]:
    handle = _plain(handle)
    for profile, _ in _ci_profiles(handle):
        out, count = (pynvml.c_nvmlComputeInstance_t * MOST_COMPUTES)(), ctypes.c_uint()
        pynvml.nvmlGpuInstanceGetComputeInstances(handle, profile, out, ctypes.byref(count))
        for each in out[: count.value]:
            try:
                info = pynvml.nvmlComputeInstanceGetInfo_v2(_plain(each))
                yield int(info.id), _compute(info)
            except (pynvml.NVMLError_NotFound, pynvml.NVMLError_InvalidArgument):
                continue  # it went meanwhile


MOST_COMPUTES: Final = 8


def _compute(info: Any) -> Compute:
    """InvalidArgument: its MIG device is gone."""
    device = info.device
    uuid = str(pynvml.nvmlDeviceGetUUID(device))
    listed = tried(pynvml.nvmlDeviceGetComputeRunningProcesses, device, default=[])
    memory = tried(pynvml.nvmlDeviceGetMemoryInfo, device)
    used = 0 if memory is None else int(memory.used)
    return Compute(int(info.id), uuid, tuple(int(each.pid) for each in listed), used)


def _ci_profiles(handle: Any) -> Iterator[tuple[int, int]]:
    """(id, compute slices) of what can be made in a GPU instance."""
    seen = set()
    for index in range(pynvml.NVML_COMPUTE_INSTANCE_PROFILE_COUNT):
        try:
            info = pynvml.nvmlGpuInstanceGetComputeInstanceProfileInfo(handle, index, SHARED)
        except pynvml.NVMLError_FunctionNotFound:
            info = pynvml.nvmlGpuInstanceGetComputeInstanceProfileInfo(handle, index, SHARED, 1)
        except (pynvml.NVMLError_NotSupported, pynvml.NVMLError_InvalidArgument):
            continue
        if int(info.id) not in seen:
            seen.add(int(info.id))
            yield int(info.id), int(info.sliceCount)
