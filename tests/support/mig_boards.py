"""MIG boards for tests of values: what NVML offers on them, as other people printed it.

source: `nvidia-smi mig -lgip` and `-lgipp` of an A30 (driver 535.183.01), an A100-SXM4-40GB (NVIDIA's MIG user guide,
R580, with sizes from NVIDIA's go-nvml mock), an H100 80GB HBM3 and an RTX PRO 6000 Blackwell Server (driver
610.43.02), published in forums and guides. Sizes printed in GiB with two decimals are rounded to 64 MiB. Independent
of simgpu's tables, so that one checks the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from gpuportion.allocator.mig.geometry import Geometry, geometry_of
from gpuportion.allocator.mig.instances import Instance, MigGpu
from gpuportion.allocator.mig.profiles import Engines, Profile

# name, id, MiB, compute slices, memory slices, starts, most at once, NVDEC NVENC NVJPG OFA
A30: Final = """
1g.6gb         14  5952 1  1 0,1,2,3       4 1,0,0,0
1g.6gb+me      21  5952 1  1 0,1,2,3       1 1,0,1,1
2g.12gb         5 11968 2  2 0,2           2 2,0,0,0
2g.12gb+me      6 11968 2  2 0,2           1 2,0,1,1
4g.24gb         0 24000 4  4 0             1 4,0,1,1
"""
A100_40: Final = """
1g.5gb         19  4864 1  1 0,1,2,3,4,5,6 7 0,0,0,0
1g.5gb+me      20  4864 1  1 0,1,2,3,4,5,6 1 1,0,1,1
1g.10gb        15  9856 1  2 0,2,4,6       4 1,0,0,0
2g.10gb        14  9856 2  2 0,2,4         3 1,0,0,0
3g.20gb         9 19968 3  4 0,4           2 2,0,0,0
4g.20gb         5 19968 4  4 0             1 2,0,0,0
7g.40gb         0 40192 7  8 0             1 5,0,1,1
"""
H100_80: Final = """
1g.10gb        19  9984 1  1 0,1,2,3,4,5,6 7 1,0,1,0
1g.10gb+me     20  9984 1  1 0,1,2,3,4,5,6 1 1,0,1,1
1g.20gb        15 20096 1  2 0,2,4,6       4 1,0,1,0
2g.20gb        14 20096 2  2 0,2,4         3 2,0,2,0
3g.40gb         9 40448 3  4 0,4           2 3,0,3,0
4g.40gb         5 40448 4  4 0             1 4,0,4,0
7g.80gb         0 81152 7  8 0             1 7,0,7,1
"""
RTX_PRO_6000: Final = """
1g.24gb        14 24192 1  3 0,3,6,9       4 1,1,1,0
1g.24gb+me     21 24192 1  3 0,3,6,9       1 1,1,1,1
1g.24gb+gfx    47 24192 1  3 0,3,6,9       4 1,1,1,0
1g.24gb+me.all 65 24192 1  3 0,3,6,9       1 4,4,4,1
1g.24gb-me     67 24192 1  3 0,3,6,9       4 0,0,0,0
2g.48gb         5 48512 2  6 0,6           2 2,2,2,0
2g.48gb+gfx    35 48512 2  6 0,6           2 2,2,2,0
2g.48gb+me.all 64 48512 2  6 0,6           1 4,4,4,1
2g.48gb-me     66 48512 2  6 0,6           2 0,0,0,0
4g.96gb         0 97408 4 12 0             1 4,4,4,1
4g.96gb+gfx    32 97408 4 12 0             1 4,4,4,1
"""
BOARDS: Final = {
    "NVIDIA A30": A30,
    "NVIDIA A100-SXM4-40GB": A100_40,
    "NVIDIA H100 80GB HBM3": H100_80,
    "NVIDIA RTX PRO 6000 Blackwell Server Edition": RTX_PRO_6000,
}


def profiles(table: str) -> tuple[Profile, ...]:
    """The rows of one of the tables above."""
    return tuple(_profile(line.split()) for line in table.strip().splitlines())


def _profile(row: Sequence[str]) -> Profile:
    name, id, memory, compute, size, starts, most, engines = row
    return Profile(
        id=int(id),
        names=(name,),
        memory=int(memory),
        compute=int(compute),
        size=int(size),
        starts=tuple(map(int, starts.split(","))),
        most=int(most),
        engines=Engines(*map(int, engines.split(","))),
    )


def board(model: str) -> Geometry:
    return geometry_of(profiles(BOARDS[model]))


A100: Final = "NVIDIA A100-SXM4-40GB"


def gpu(index: int = 0, model: str = A100, trouble: str = "") -> MigGpu:
    """A GPU of one of BOARDS with MIG on."""
    uuid = f"GPU-0000000{index}-0000-0000-0000-000000000000"
    return MigGpu(index, uuid, model, board(model), trouble)


def instance(
    on: MigGpu, name: str, start: int, idle_since: float | None = None, ours: bool = True, holder: str = ""
) -> Instance:
    """In use, unless it is idle since some time. The id tells instances of one GPU apart, as NVML's do."""
    profile = next(each for each in on.board.profiles if each.name == name)
    id = start * 32 + profile.id % 32
    return Instance(on.uuid, id, profile.id, start, profile.size, ours, idle_since, holder=holder)
