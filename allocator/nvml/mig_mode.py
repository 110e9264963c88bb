"""Switches a GPU's MIG mode by NVML. Who may, and whether somebody is in the way, is decided elsewhere."""

from __future__ import annotations

from typing import Final

import pynvml

from gpuportion.allocator.nvml.session import connect, disconnect, sentence

SAID: Final = {
    pynvml.NVML_ERROR_RESET_REQUIRED: "the GPU has to be reset first",
    pynvml.NVML_ERROR_IN_USE: "somebody has the GPU open (a monitoring service such as DCGM does, too)",
    pynvml.NVML_ERROR_NOT_SUPPORTED: "the driver can't from here: in a virtual machine, reboot that",
}


def switch(uuid: str, on: bool) -> tuple[bool, bool, str]:
    """Ask for the mode: (what it is now, what it is after the next reset, why it is not what was asked for or "").

    On boards before Hopper the driver resets an idle GPU, which takes seconds."""
    try:
        connect()
    except (pynvml.NVMLError, OSError) as problem:
        return not on, not on, sentence(problem)
    try:
        device = pynvml.nvmlDeviceGetHandleByUUID(uuid)
        said = _set(device, on)
        # Its handle may be another one after a reset.
        now, then = pynvml.nvmlDeviceGetMigMode(pynvml.nvmlDeviceGetHandleByUUID(uuid))
    except pynvml.NVMLError as problem:
        return not on, not on, sentence(problem)
    finally:
        disconnect()
    return now == 1, then == 1, "" if (now == 1) is on else said or "the driver did nothing"


def _set(device: object, on: bool) -> str:
    """Why it is not at once, as the driver says; "" where it is."""
    try:
        status = int(pynvml.nvmlDeviceSetMigMode(device, int(on)))
    except pynvml.NVMLError as problem:
        return SAID.get(problem.value) or sentence(problem)
    if status == pynvml.NVML_SUCCESS:
        return ""
    return SAID.get(status) or sentence(pynvml.NVMLError(status))
