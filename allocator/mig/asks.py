"""What a request means on a board: which profiles would do, the smallest first.

Pure; knows no GPUs, no instances and no policy. What a board cannot do at all is an empty tuple here, and a
sentence elsewhere."""

from __future__ import annotations

from decimal import ROUND_CEILING, Decimal
from functools import lru_cache
from typing import NamedTuple

from gpuportion.allocator.mig.geometry import Geometry
from gpuportion.allocator.mig.profiles import Profile
from gpuportion.shim.request import Request
from gpuportion.sizes import MIB


class Ask(NamedTuple):
    """The part of a request that chooses a profile. `memory` in MiB, `fraction` of the memory slices, `compute`
    in per cent, `name` of a profile; None and 0 ask for nothing."""

    memory: int = 0
    fraction: Decimal | None = None
    compute: int = 0
    name: str | None = None


def ask_of(want: Request) -> Ask:
    """Of one GPU. A whole GPU, where it is cut by MIG, is all of its slices."""
    return Ask(
        memory=max(want.memory, default=0) // MIB,
        fraction=Decimal(1) if want.whole else want.fraction,
        compute=want.compute or 0,
        name=want.mig,
    )


@lru_cache(maxsize=4096)
def fitting(board: Geometry, ask: Ask) -> tuple[Profile, ...]:
    """The profiles that hold `ask`, the smallest first: fewest memory slices, then fewest compute slices.

    The first is what is meant, the others are larger. Media variants count only by name."""
    if ask.name is None:
        return tuple(
            profile for profile in board.profiles if not profile.variant and _holds(board, profile, ask)
        )
    named = called(board, ask.name)
    if named is None or not _holds(board, named, ask):
        return ()
    return (named, *(each for each in board.profiles if _is_larger(each, named)))


def called(board: Geometry, name: str) -> Profile | None:
    """The profile of this name, of the driver's or another's; None where there is none, or two are as near."""
    exact = [profile for profile in board.profiles if profile.is_called(name)]
    near = exact or [profile for profile in board.profiles if profile.is_nearly_called(name)]
    return near[0] if len(near) == 1 else None


def _holds(board: Geometry, profile: Profile, ask: Ask) -> bool:
    slices = 0 if ask.fraction is None else (ask.fraction * board.slices).to_integral_value(ROUND_CEILING)
    return (
        profile.memory >= ask.memory
        and profile.size >= slices
        and profile.compute * 100 >= ask.compute * board.compute
    )


def _is_larger(profile: Profile, named: Profile) -> bool:
    return (
        profile.variant == named.variant
        and profile.rank > named.rank
        and profile.memory >= named.memory
        and profile.compute >= named.compute
    )
