"""Makes simulated devices and their driver ill, and well again, while programs use them.

Each setting is a number of a fixed width in the state file's text, changed in place: the simulated NVML reads it at
each call (nvml/health.c, events.c, telemetry.c). CUDA does not heed it: what runs goes on."""

from __future__ import annotations

import os
from typing import Final

from gpuportion.errors import GpuportionError
from gpuportion.simgpu import state

WIDTH: Final = 5
UNTOLD: Final = 99
"""A recovery action that the driver does not tell, as before 565."""

LOST, RESET_REQUIRED, UNKNOWN = 15, 16, 999
DRIVER_NOT_LOADED: Final = 9

BOARD: Final = ("error", "xids", "xid", "action", "silent")
DRIVER: Final = ("error", "hangs", "loads", "missing")


def settings(devices: int) -> dict[str, object]:
    """As the state file has them at first: all well."""
    names = [f"board.{i}.{name}" for i in range(devices) for name in BOARD]
    return {name: "0" * WIDTH for name in (*names, *(f"driver.{name}" for name in DRIVER))}


def error(path: str, device: int, number: int = LOST) -> None:
    """From now on NVML answers every call about this device with this error; 0: it is well."""
    _set(path, f"board.{device}.error", number)


def raise_xid(path: str, device: int, xid: int, action: int = 0) -> None:
    """An XID event; and what NVML is to say from now on that must be done about the device (0: nothing). Of several
    between two looks of a program it is told the last."""
    _set(path, f"board.{device}.action", action)
    _set(path, f"board.{device}.xid", xid)
    _set(path, f"board.{device}.xids", int(state.settings(path)[f"board.{device}.xids"]) + 1)


def recover(path: str, device: int) -> None:
    """As a reset does: no error, nothing to be done."""
    for name in ("error", "action", "silent"):
        _set(path, f"board.{device}.{name}", 0)


def silence(path: str, device: int) -> None:
    """NVML lists no process of this device, whatever they hold."""
    _set(path, f"board.{device}.silent", 1)


def driver_error(path: str, number: int = DRIVER_NOT_LOADED) -> None:
    """Every call of NVML answers this, nvmlInit too; 0: the driver is well."""
    _set(path, "driver.error", number)


def miss(path: str, devices: int) -> None:
    """The driver counts so many devices fewer, the last ones; 0: all are there."""
    _set(path, "driver.missing", devices)


def hang(path: str, hangs: bool = True) -> None:
    """Calls of NVML do not come back until it is over."""
    _set(path, "driver.hangs", int(hangs))


def reload_driver(path: str, version: str = "") -> None:
    """The driver was unloaded and loaded: sessions from before answer nothing; with another `version` neither does a
    library that was loaded before. A version is as long as the one that is there."""
    before = state.settings(path)
    if version and len(version) != len(before["driver.version"]):
        why = f"is of another length than {before['driver.version']}."
        raise GpuportionError("GP107", key="version", value=version, why=why)
    _set(path, "driver.loads", int(before["driver.loads"]) + 1)
    if version:
        _write(path, "driver.version", version)


def _set(path: str, key: str, number: int) -> None:
    if not 0 <= number < 10**WIDTH:
        raise GpuportionError("GP107", key=key, value=number, why=f"is not between 0 and {10**WIDTH - 1}.")
    _write(path, key, f"{number:0{WIDTH}}")


def _write(path: str, key: str, text: str) -> None:
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        at = os.pread(fd, state.TEXT, 0).find(f"\n{key} ".encode())
        if at < 0:
            raise GpuportionError("GP305", what=f"the setting {key}", why=f"{path} has no such device")
        os.pwrite(fd, text.encode(), at + len(key) + 2)
    finally:
        os.close(fd)
