"""Other amounts for a grant that lives, or why it can't have them. Pure: values in, shares or an error out.

Growing needs room on the GPUs that it has: memory does not move. Shrinking below what is in use is done only by
force; then nothing is ended, and nothing new is given until the container is below its limit again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from gpuportion.allocator.devices import Gpu, Holding, Share, free
from gpuportion.allocator.placement import Rules
from gpuportion.errors import GpuportionError
from gpuportion.sizes import both, gb, mib


def resized(
    gpus: Mapping[str, Gpu],
    others: Sequence[Holding],
    shares: Sequence[Share],
    amounts: Sequence[int],
    used: Mapping[str, int],
    beyond: Mapping[str, int],
    rules: Rules,
    *,
    force: bool,
) -> tuple[Share, ...]:
    """`shares` with `amounts` in bytes, one for all of them or one for each.

    By UUID: `gpus`; `used`, what the container holds as the driver or its ledger says; `beyond`, what the driver says
    that it holds above its limit, which is no stranger's. `others`: what everybody else holds. GpuportionError GP106,
    GP107 or GP111.
    """
    if len(amounts) not in (1, len(shares)):
        why = f"{len(amounts)} amounts for {len(shares)} GPUs"
        raise GpuportionError("GP106", keys="--gpu-memory and the container's GPUs", why=why)
    wanted = amounts if len(amounts) == len(shares) else [amounts[0]] * len(shares)
    if min(wanted) < rules.minimum:
        why = f"is below the least that can be granted, {both(rules.minimum)}."
        raise GpuportionError("GP107", key="--gpu-memory", value=mib(min(wanted)), why=why)
    for share, limit in zip(shares, wanted, strict=True):
        if limit > share.limit:
            _check_room(gpus.get(share.uuid), others, share, limit, beyond.get(share.uuid, 0))
        elif not force and limit < used.get(share.uuid, 0):
            raise _in_use(share, limit, used[share.uuid])
    return tuple(
        dataclasses.replace(share, limit=limit, tolerated=_tolerated(limit, used.get(share.uuid, 0)))
        for share, limit in zip(shares, wanted, strict=True)
    )


def _tolerated(limit: int, used: int) -> int:
    return used if used > limit else 0


def _check_room(gpu: Gpu | None, others: Sequence[Holding], share: Share, limit: int, beyond: int) -> None:
    what = f"it would have {both(limit)} of GPU {share.index} instead of {gb(share.limit)}"
    if gpu is None or gpu.trouble:
        why = gpu.trouble if gpu else "the driver does not show it now"
        raise GpuportionError("GP111", what=what, why=f"GPU {share.index} can serve nobody: {why}.", hint="")
    room = free(gpu, others) + beyond
    if limit > room:
        why = f"{gb(room)} can be granted to it there."
        hint = f" Write at most {room // 10**6}M, or end another container (`gpuportion ps`)." if room else ""
        raise GpuportionError("GP111", what=what, why=why, hint=hint)


def _in_use(share: Share, limit: int, used: int) -> GpuportionError:
    what = f"it would have {both(limit)} of GPU {share.index} and uses {both(used)} there"
    hint = " With --force nothing is ended, and it gets nothing new until it uses less."
    return GpuportionError("GP111", what=what, why="that is more.", hint=hint)
