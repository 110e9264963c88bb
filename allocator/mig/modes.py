"""What a GPU's MIG mode means for its role: whether it can serve, and what has to happen first.

    role   mode   after a reset
    mig    on     on              it serves partitions
    mig    off    on              a reset is needed first
    mig    off    off             the mode went with a reboot, as it does from Hopper on: it is to be switched on
    none   on     -               it serves nobody: whole and fractions need MIG off, partitions the role
    none   off    -               it serves fractions

Pure; the sentences go where `health` is shown and into refusals."""

from __future__ import annotations

from typing import Final

from gpuportion.allocator.mig.seen import MigReading

RESET: Final = (
    "MIG mode is {then} after a reset of the GPU: systemctl stop gpuportiond; nvidia-smi --gpu-reset -i {index}; "
    "systemctl start gpuportiond (whatever runs on it must have ended; in a virtual machine, reboot that)"
)
SWITCHING: Final = (
    "it has the MIG role, and its MIG mode is off; it is switched on as soon as nobody uses the GPU"
)
WITHOUT_ROLE: Final = (
    "it is in MIG mode and has no MIG role; give it one: gpuportion node set-role --mig-enabled --gpu {index}"
)
FRACTIONS: Final = (
    "it serves fractions; for MIG give it the role: gpuportion node set-role --mig-enabled --gpu {index}"
)
WITHOUT_MIG: Final = "it has the MIG role, and board or driver have no MIG"


def trouble(index: int, has_role: bool, reading: MigReading | None) -> str:
    """Why GPU `index` can serve nobody now in the role that it has; "" where it can."""
    if reading is None:
        return WITHOUT_MIG if has_role else ""
    if has_role and not reading.mode:
        return RESET.format(then="on", index=index) if reading.pending else SWITCHING
    if not has_role and reading.mode:
        return WITHOUT_ROLE.format(index=index) if reading.pending else RESET.format(then="off", index=index)
    return reading.trouble if has_role else ""


def to_switch_on(has_role: bool, reading: MigReading | None) -> bool:
    """Whether the mode has to be set again, as after a reboot."""
    return has_role and reading is not None and not reading.mode and not reading.pending


def stays_on(reading: MigReading) -> bool:
    """Now and after the next reset."""
    return reading.mode and reading.pending


def stays_off(reading: MigReading) -> bool:
    """Now and after the next reset: one that was asked for and waits for a reset would come with any later one."""
    return not reading.mode and not reading.pending


def shown(reading: MigReading | None) -> str:
    """`on`, `off`, or what a reset would make of it; "" without MIG."""
    if reading is None:
        return ""
    now, then = ("on" if value else "off" for value in (reading.mode, reading.pending))
    return now if now == then else f"{now}, {then} after a reset"
