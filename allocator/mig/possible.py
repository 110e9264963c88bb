"""Which GPUs could ever serve a request by MIG, or the sentence why none of them can, however empty it were."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from gpuportion.allocator.devices import matches
from gpuportion.allocator.mig.asks import Ask, ask_of, called, fitting
from gpuportion.allocator.mig.geometry import Geometry
from gpuportion.allocator.mig.instances import MigGpu
from gpuportion.allocator.mig.profiles import Profile
from gpuportion.errors import GpuportionError
from gpuportion.shim.request import Request
from gpuportion.sizes import both, parse


def possible(gpus: Sequence[MigGpu], want: Request) -> list[MigGpu]:
    """The healthy, selected GPUs that could serve `want`, by index; GpuportionError if there are none."""
    if want.count > 1:
        why = "is more than the one MIG portion that a container can get. Leave it out, or write GPU_ROLE=fraction."
        raise GpuportionError("GP107", key="GPU_COUNT", value=want.count, why=why)
    healthy = _healthy(_selected(gpus, want))
    ask = ask_of(want)
    able = [gpu for gpu in healthy if fitting(gpu.board, ask)]
    if not able:
        raise _never(healthy, want, ask)
    return able


def _selected(gpus: Sequence[MigGpu], want: Request) -> list[MigGpu]:
    if not gpus:
        why = "MIG is not enabled on any of its GPUs. Enable it: gpuportion node set-role --mig-enabled."
        raise GpuportionError("GP109", what="a portion by MIG", why=why)
    selected = [gpu for gpu in gpus if not want.select or any(matches(gpu, word) for word in want.select)]
    if not selected:
        known = ", ".join(f"{gpu.index} ({gpu.model}, {gpu.uuid})" for gpu in gpus)
        why = f"matches no GPU with MIG of this node. It has {known}."
        raise GpuportionError("GP107", key="GPU_SELECT", value=",".join(want.select), why=why)
    return sorted(selected, key=lambda gpu: gpu.index)


def _healthy(gpus: Sequence[MigGpu]) -> list[MigGpu]:
    """The board is part of it: without profiles nothing can be made."""
    troubles = {gpu.uuid: gpu.trouble or _without_profiles(gpu) for gpu in gpus}
    healthy = [gpu for gpu in gpus if not troubles[gpu.uuid]]
    if not healthy:
        raise GpuportionError(
            "GP302", why="; ".join(f"GPU {gpu.index}: {troubles[gpu.uuid]}" for gpu in gpus)
        )
    return healthy


def _without_profiles(gpu: MigGpu) -> str:
    return "" if any(gpu.board.masks.values()) else "the driver offers no MIG profile on it"


def _never(gpus: Sequence[MigGpu], want: Request, ask: Ask) -> GpuportionError:
    models = " and ".join(dict.fromkeys(gpu.model for gpu in gpus))
    profiles = sorted((each for gpu in gpus for each in gpu.board.profiles), key=lambda each: each.rank)
    if want.mig is None:
        largest = max(profiles, key=lambda each: (not each.variant, each.memory, each.compute))
        return GpuportionError(
            "GP105", models=models, asked=_asked(want), largest=largest.name, memory=largest.memory
        )
    named = [profile for gpu in gpus if (profile := called(gpu.board, want.mig))]
    if not named:
        return GpuportionError("GP103", profile=want.mig, models=models, known=" ".join(_names(profiles)))
    most = max(named, key=lambda each: (each.memory, each.compute))
    board = next(gpu.board for gpu in gpus if most in gpu.board.profiles)
    key, has = _conflict(board, most, want, ask)
    return GpuportionError("GP104", profile=want.mig, key=key, has=has)


def _names(profiles: Iterable[Profile]) -> list[str]:
    return list(dict.fromkeys(profile.name for profile in profiles))


def _conflict(board: Geometry, named: Profile, want: Request, ask: Ask) -> tuple[str, str]:
    """The key that the profile cannot satisfy, as it may be written, and what the profile has instead."""
    if named.memory < ask.memory:
        return f"GPU_MEMORY_LIMIT={written(want.memory[0])}", f"{named.memory} MiB"
    if named.compute * 100 < ask.compute * board.compute:
        return f"GPU_COMPUTE={ask.compute}", f"{named.compute} of {board.compute} compute slices"
    return f"GPU_FRACTION={float(ask.fraction or 0):g}", f"{named.size} of {board.slices} memory slices"


def _asked(want: Request) -> str:
    parts = [both(want.memory[0])] if want.memory else []
    parts += [f"{float(want.fraction):g} of a GPU's memory"] if want.fraction is not None else []
    parts += [f"{want.compute} % of a GPU's compute"] if want.compute is not None else []
    return " and ".join(parts)


def written(size: int) -> str:
    """An amount as it may have been written: `16G` or `16Gi` where that is this many bytes, else `1500M`."""
    units = (("G", 10**9), ("Gi", 1 << 30), ("M", 10**6))
    texts = (f"{-(-size // length)}{unit}" for unit, length in units)
    return next(text for text in texts if parse(text) == size)
