"""The boards that can be simulated, by name, and how a spec such as `a100-80gb:2,t4-16gb` names them.

Names, PCI identities, compute capabilities and MIG profiles are those of such boards. The other figures are nominal:
total, what the driver keeps for itself (total - reserved is what CUDA calls total), multiprocessors, power, clocks,
PCIe, NVLinks, fans come near to what such boards report, and were not measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gpuportion.errors import GpuportionError
from gpuportion.sizes import MIB

MAX_DEVICES: Final = 16


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
    nvlinks: int = 0
    fans: int = 0


def _board(
    name: str,
    mib: int,
    reserved: int,
    capability: tuple[int, int],
    sms: int,
    device: int,
    mig: str,
    *figures: int,
) -> Board:
    return Board(name, mib * MIB, reserved * MIB, capability, sms, device << 16 | 0x10DE, mig, *figures)


BOARDS: Final = {
    "t4-16gb": _board("Tesla T4", 15360, 430, (7, 5), 40, 0x1EB8, "", 70, 1590, 5001, 3),
    "a10-24gb": _board("NVIDIA A10", 23028, 512, (8, 6), 72, 0x2236, "", 150, 1695, 6251, 4),
    "a30-24gb": _board("NVIDIA A30", 24576, 484, (8, 0), 56, 0x20B7, "a30-24", 165, 1440, 1215, 4, 4),
    "a100-40gb": _board(
        "NVIDIA A100-SXM4-40GB", 40960, 621, (8, 0), 108, 0x20B0, "a100-40", 400, 1410, 1215, 4, 12
    ),
    "a100-pcie-40gb": _board(
        "NVIDIA A100-PCIE-40GB", 40960, 621, (8, 0), 108, 0x20F1, "a100-40", 250, 1410, 1215, 4, 12
    ),
    "a100-80gb": _board(
        "NVIDIA A100-SXM4-80GB", 81920, 764, (8, 0), 108, 0x20B2, "a100-80", 400, 1410, 1593, 4, 12
    ),
    "a100-pcie-80gb": _board(
        "NVIDIA A100 80GB PCIe", 81920, 764, (8, 0), 108, 0x20B5, "a100-80", 300, 1410, 1512, 4, 12
    ),
    "l4-24gb": _board("NVIDIA L4", 23034, 474, (8, 9), 58, 0x27B8, "", 72, 2040, 6251, 4),
    "l40s-48gb": _board("NVIDIA L40S", 46068, 600, (8, 9), 142, 0x26B9, "", 350, 2520, 9001, 4),
    "rtx4090-24gb": _board(
        "NVIDIA GeForce RTX 4090", 24564, 483, (8, 9), 128, 0x2684, "", 450, 3105, 10501, 4, 0, 2
    ),
    "h100-80gb": _board(
        "NVIDIA H100 80GB HBM3", 81559, 407, (9, 0), 132, 0x2330, "h100-80", 700, 1980, 2619, 5, 18
    ),
    "h100-pcie-80gb": _board(
        "NVIDIA H100 PCIe", 81559, 407, (9, 0), 114, 0x2331, "h100-pcie-80", 350, 1755, 1593, 5, 18
    ),
    "h100-nvl-94gb": _board(
        "NVIDIA H100 NVL", 95830, 470, (9, 0), 132, 0x2321, "h100-94", 400, 1785, 2619, 5, 18
    ),
    "h20-96gb": _board("NVIDIA H20", 97871, 570, (9, 0), 78, 0x2329, "h20-96", 500, 1980, 2619, 5, 18),
    "gh200-96gb": _board(
        "NVIDIA GH200 480GB", 97871, 570, (9, 0), 132, 0x2342, "gh200-96", 700, 1980, 2619, 5, 18
    ),
    "gh200-144gb": _board(
        "NVIDIA GH200 144G HBM3e", 148480, 620, (9, 0), 132, 0x2348, "gh200-144", 700, 1980, 3201, 5, 18
    ),
    "h200-141gb": _board("NVIDIA H200", 143771, 606, (9, 0), 132, 0x2335, "h200-141", 700, 1980, 3201, 5, 18),
    "b200-192gb": _board(
        "NVIDIA B200", 183359, 575, (10, 0), 148, 0x2901, "b200-180", 1000, 1965, 3996, 5, 18
    ),
    "gb200-186gb": _board(
        "NVIDIA GB200", 191488, 700, (10, 0), 152, 0x2941, "gb200-186", 1200, 2062, 3996, 6, 18
    ),
    "b300-269gb": _board(
        "NVIDIA B300 SXM6 AC", 276480, 700, (10, 3), 148, 0x3182, "b300-269", 1100, 2032, 3996, 6, 18
    ),
    "gb300-278gb": _board(
        "NVIDIA GB300", 286720, 700, (10, 3), 152, 0x31C2, "gb300-278", 1400, 2062, 3996, 6, 18
    ),
    "rtx-pro-6000-96gb": _board(
        "NVIDIA RTX PRO 6000 Blackwell Server Edition",
        97887,
        479,
        (12, 0),
        188,
        0x2BB5,
        "rtx-pro-6000-96",
        600,
        2430,
        12481,
        5,
    ),
}


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
