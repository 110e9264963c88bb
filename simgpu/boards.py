"""The boards that can be simulated, as boards.tsv has them, and how a spec such as `a100-80gb:2,t4-16gb` names them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gpuportion.errors import GpuportionError
from gpuportion.sizes import MIB

MAX_DEVICES: Final = 16

TABLE: Final = Path(__file__).with_name("boards.tsv")
FIGURES: Final = ("watts", "clock", "memory_clock", "pcie", "nvlinks", "fans")
NVIDIA: Final = 0x10DE
"""Its PCI vendor id."""


@dataclass(frozen=True, slots=True)
class Board:
    name: str
    """As NVML gives it."""
    total: int
    """Bytes."""
    reserved: int
    """Bytes that the driver keeps for itself."""
    capability: tuple[int, int]
    sms: int
    pci_identity: int
    """Device id << 16 | vendor id."""
    mig: str
    """Its family in mig_profiles.tsv; empty: no MIG."""
    watts: int
    clock: int
    """MHz, at most, of the multiprocessors."""
    memory_clock: int
    """MHz."""
    pcie: int
    """Generation."""
    nvlinks: int
    fans: int


def _board(fields: list[str]) -> Board:
    name, mib, reserved, capability, sms, device, mig, *figures = fields
    major, minor = map(int, capability.split("."))
    return Board(
        name=name,
        total=int(mib) * MIB,
        reserved=int(reserved) * MIB,
        capability=(major, minor),
        sms=int(sms),
        pci_identity=int(device, 16) << 16 | NVIDIA,
        mig=mig.removeprefix("-"),
        **dict(zip(FIGURES, map(int, figures), strict=True)),
    )


def _read() -> dict[str, Board]:
    lines = TABLE.read_text(encoding="ascii").splitlines()
    rows = (line.split("\t") for line in lines if not line.startswith("#"))
    return {key: _board(fields) for key, *fields in rows}


BOARDS: Final = _read()


def parse(spec: str, key: str = "--gpus") -> tuple[str, ...]:
    """Board names, one a device, of `name[:count][,name[:count]]...`. GP107, said of `key`, if it is none."""
    names: list[str] = []
    for part in spec.split(","):
        name, colon, count = part.strip().partition(":")
        if name not in BOARDS:
            raise _bad(
                key, spec, f"names no board that can be simulated: {name!r}. Known: {' '.join(BOARDS)}."
            )
        if colon and not (count.isascii() and count.isdigit() and int(count)):
            raise _bad(key, spec, f"has no count after {name}: {count!r}. Write {name}:2.")
        names += [name] * min(int(count or 1), MAX_DEVICES + 1)
    if len(names) > MAX_DEVICES:
        raise _bad(key, spec, f"names more than {MAX_DEVICES} devices, the most that can be simulated.")
    return tuple(names)


def _bad(key: str, spec: str, why: str) -> GpuportionError:
    return GpuportionError("GP107", key=key, value=spec, why=why, exit_status=2)
