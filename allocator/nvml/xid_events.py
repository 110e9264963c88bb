"""The XID events of the GPUs, by an NVML event set that is looked into after each sample.

What an XID means is for allocator/health.py. A GPU that can't be registered (it is lost, or has no events) has none."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from typing import Any, Final

import pynvml

from gpuportion.allocator.nvml.session import tried

MOST: Final = 64
"""Events that are taken at one look; more wait for the next."""

MOMENT: Final = 1
"""Milliseconds that a look may take where nothing happened."""


class XidEvents:
    """One event set, for as long as a session lasts."""

    def __init__(self) -> None:
        self._set: Any = None
        self._uuids: dict[int | None, str] = {}

    def read(self, uuids: Sequence[str]) -> tuple[tuple[str, int], ...]:
        """(UUID, XID) of what has happened to these GPUs since they were first given here."""
        if self._set is None:
            self._set = tried(pynvml.nvmlEventSetCreate)
        if self._set is None:
            return ()
        for uuid in uuids:
            if uuid not in self._uuids.values():
                self._register(uuid)
        return tuple(self._happened())

    def close(self) -> None:
        """Before the session ends."""
        if self._set is not None:
            tried(pynvml.nvmlEventSetFree, self._set)
        self._set, self._uuids = None, {}

    def _register(self, uuid: str) -> None:
        try:
            device = pynvml.nvmlDeviceGetHandleByUUID(uuid)
            pynvml.nvmlDeviceRegisterEvents(device, pynvml.nvmlEventTypeXidCriticalError, self._set)
        except pynvml.NVMLError:
            return
        self._uuids[_number(device)] = uuid

    def _happened(self) -> Iterator[tuple[str, int]]:
        for _ in range(MOST):
            try:
                event = pynvml.nvmlEventSetWait_v2(self._set, MOMENT)
            except pynvml.NVMLError:
                return  # the time is over, or a GPU is lost, which the sample says as well
            uuid = self._uuids.get(_number(event.device))
            if uuid is not None and event.eventType == pynvml.nvmlEventTypeXidCriticalError:
                yield uuid, int(event.eventData)


def _number(device: Any) -> int | None:
    return ctypes.cast(device, ctypes.c_void_p).value
