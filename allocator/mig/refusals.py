"""Why a request gets no MIG instance now: GP101 with its numbers.

The planner has looked everywhere before it makes one; nothing is chosen here."""

from __future__ import annotations

from dataclasses import dataclass

from gpuportion.allocator.mig.instances import Instance, Occupancy
from gpuportion.allocator.mig.profiles import Profile
from gpuportion.errors import GpuportionError
from gpuportion.shim.request import Request
from gpuportion.sizes import both


@dataclass(frozen=True, slots=True)
class Refusal:
    """No GPU of `node` has room. `smallest`: the profiles that would do, one for each kind of GPU. `larger`: the
    next larger one; `fits`: the nearest larger one that has room, which the request does not allow."""

    want: Request
    node: tuple[Occupancy, ...]
    smallest: tuple[Profile, ...]
    larger: Profile | None = None
    fits: Profile | None = None

    @property
    def best(self) -> Occupancy:
        """The GPU with the most slices free."""
        return max(self.node, key=lambda one: (one.free, -one.gpu.index))

    @property
    def smaller(self) -> Profile | None:
        """The largest ordinary profile that has room now and is smaller than all that would do."""
        least = min((each.memory, each.compute) for each in self.smallest)
        fitting = (profile for one in self.node for profile in _with_room(one) if not profile.variant)
        return max(
            (profile for profile in fitting if (profile.memory, profile.compute) < least),
            key=lambda profile: (profile.memory, profile.compute),
            default=None,
        )

    def error(self, subject: str) -> GpuportionError:
        """GP101, for `subject` such as `container "train"`."""
        hints = self._hints()
        return GpuportionError(
            "GP101",
            subject=subject,
            asked=self._asked(),
            best=self._room(),
            holders=_holders(self.best) + self._next_larger(),
            suggestion="".join(f"{hint}, " for hint in hints) + ("or " if hints else ""),
        )

    def _asked(self) -> str:
        profiles = " or ".join(f"{each.name} ({each.memory} MiB)" for each in self.smallest)
        if self.want.mig is not None:
            return f"the MIG profile {profiles}"
        parts = [f"{both(self.want.memory[0])} of GPU memory"] if self.want.memory else []
        parts += (
            [f"{float(self.want.fraction):g} of a GPU's memory"] if self.want.fraction is not None else []
        )
        parts += [f"{self.want.compute} % of a GPU's compute"] if self.want.compute is not None else []
        return f"{' and '.join(parts) or 'all of a GPU'}, which takes the MIG profile {profiles}"

    def _room(self) -> str:
        free = f"{self.best.free} of {self.best.gpu.board.slices} memory slices free"
        if len(self.node) == 1:
            return f"GPU {self.best.gpu.index} has no place for that, with {free}"
        return f"none of {len(self.node)} GPUs has a place for that; GPU {self.best.gpu.index} has {free}"

    def _next_larger(self) -> str:
        if self.larger is None or self.fits is not None:
            return ""
        return f" The next larger profile, {self.larger.name}, has no place either."

    def _hints(self) -> list[str]:
        hints = (
            [f"GPU_MIG_GROW=allow (it takes the larger {self.fits.name})"] if self.fits is not None else []
        )
        smaller = self.smaller
        if smaller is not None:
            by_memory = bool(self.want.memory) and self.want.compute is None and self.want.mig is None
            hints.append(
                f"GPU_MEMORY_LIMIT={smaller.memory}Mi" if by_memory else f"GPU_MIG={smaller.name} alone"
            )
        return hints


def _with_room(one: Occupancy) -> list[Profile]:
    board = one.gpu.board
    return [
        profile
        for profile in board.profiles
        if any(one.victims(profile, place) is not None for place in board.masks[profile.id])
    ]


def _holders(one: Occupancy) -> str:
    held = [each for each in one.instances if not each.evictable]
    names = [f"{each.holder or _anonymous(each)} {_profile(one, each)}" for each in held]
    where = f"GPU {one.gpu.index}"
    return f"In use on {where}: {', '.join(names)}." if names else f"Nothing is in use on {where}."


def _anonymous(each: Instance) -> str:
    return "a container" if each.ours else "others"


def _profile(one: Occupancy, each: Instance) -> str:
    known = one.gpu.board.by_id.get(each.profile)
    return known.name if known else f"{each.size} memory slices"
