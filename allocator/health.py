"""Which GPUs can serve nobody, though NVML answers for them: by the XIDs that they had, and by what the driver says
must be done about them.

    an XID of a program's own doing        nothing follows (HARMLESS)
    any other                              the GPU is out, and what it runs goes on
    the driver tells the recovery action   out as long as there is one, XID or not; after an XID, SETTLED seconds more
    it does not (before 565)               out for QUIET seconds after the last such XID

A GPU that NVML has an error for is out by that, and comes back with its first good answer. Forgotten with the daemon: a
restart of it begins anew. Pure: values in, sentences out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

HARMLESS: Final = {
    # XIDs after which the same GPU serves the next program, by NVIDIA's catalog and its Kubernetes device plugin
    8: "GPU stopped processing",
    11: "invalid or corrupted push buffer stream",
    13: "graphics engine exception",
    31: "GPU memory page fault",
    43: "GPU stopped processing",
    45: "preemptive cleanup, due to previous errors",
    63: "a row was remapped, or a page retired",
    68: "video processor exception",
    69: "graphics engine class error",
    92: "high single-bit ECC error rate",
    94: "contained memory error",
    109: "context switch timeout",
    154: "GPU recovery action changed",
}
NAMES: Final = {
    48: "double-bit memory error",
    62: "internal micro-controller halt",
    64: "a row could not be remapped, or a page not retired",
    74: "NVLink error",
    79: "the GPU has fallen off the bus",
    95: "uncontained memory error",
    119: "GSP timeout",
    120: "GSP error",
}

ACTIONS: Final = {
    # NVML's nvmlDeviceGpuRecoveryAction_t: what the driver says must be done
    1: "it needs a reset: end what uses it, then nvidia-smi --gpu-reset",
    2: "the node must be rebooted",
    3: "end the programs that use it by peer-to-peer",
    4: "end what uses it, then reset it: nvidia-smi --gpu-reset",
    5: "its IMEX domain must recover",
    6: "its bus must be reset",
    7: "the system must be rebooted",
}

SETTLED: Final = 5.0
QUIET: Final = 600.0


def is_harmless(xid: int) -> bool:
    """Does the GPU go on as if nothing had happened?"""
    return xid in HARMLESS


def called(xid: int) -> str:
    """`XID 79 (the GPU has fallen off the bus)`."""
    name = HARMLESS.get(xid) or NAMES.get(xid)
    return f"XID {xid} ({name})" if name else f"XID {xid}"


class Health:
    """The last harmful XID of each GPU, by UUID."""

    def __init__(self) -> None:
        self._struck: dict[str, tuple[int, float]] = {}

    def update(
        self, events: Iterable[tuple[str, int]], actions: Mapping[str, int | None], now: float
    ) -> dict[str, str]:
        """Why GPUs can serve nobody now, by UUID, after these XIDs. `actions`: what the driver says must be done about
        each GPU, None where it does not tell; `now` in seconds of CLOCK_BOOTTIME."""
        for uuid, xid in events:
            if not is_harmless(xid):
                self._struck[uuid] = xid, now
        for uuid, action in actions.items():
            lasts = QUIET if action is None else SETTLED
            if not action and uuid in self._struck and now - self._struck[uuid][1] >= lasts:
                del self._struck[uuid]
        troubles = {uuid: self._trouble(uuid, action) for uuid, action in actions.items()}
        return {uuid: trouble for uuid, trouble in troubles.items() if trouble}

    def _trouble(self, uuid: str, action: int | None) -> str:
        struck = self._struck.get(uuid)
        had = f"it had {called(struck[0])}" if struck else ""
        if action:
            told = ACTIONS.get(action, f"recovery action {action}")
            return f"{had}; the driver says: {told}" if had else f"the driver says: {told}"
        if had and action is None:
            return f"{had}; it serves again when it has had none for {QUIET / 60:g} minutes"
        return had
