"""By which way a request is served: a fraction of a GPU, or a MIG instance of one.

    GPU_ROLE=fraction, mig        that way alone
    GPU_MIG=2g.10gb               by MIG alone
    GPU_COMPUTE=30                by MIG, else by a fraction
    memory, whole GPUs            by a fraction, else by MIG

Each way looks at its own GPUs: those with the MIG role, and the others. A way without a GPU that may serve the request
is left out. Where none has room, the first way's refusal is given, with what the other one has. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from gpuportion.allocator import no_room
from gpuportion.allocator.devices import Gpu, Named, matches
from gpuportion.allocator.mig import refusals
from gpuportion.allocator.mig.instances import MigGpu
from gpuportion.allocator.mig.planner import Plan
from gpuportion.allocator.placement import Placement
from gpuportion.errors import GpuportionError
from gpuportion.shim.request import Request, Role

ByFraction = Callable[[], "Placement | no_room.Refusal"]
ByMig = Callable[[], "Plan | refusals.Refusal"]

FRACTION, MIG = Role.FRACTION, Role.MIG
FRACTION_FIRST: Final = (FRACTION, MIG)
MIG_FIRST: Final = (MIG, FRACTION)
NO_FRACTIONS: Final = (
    "every GPU that may serve it has the MIG role. Take it from one (gpuportion node remove-role --mig-enabled), "
    "select others (GPU_SELECT), or, for a container, leave out GPU_ROLE"
)


def order(want: Request) -> tuple[Role, ...]:
    """The ways that may serve `want`, the preferred one first."""
    if want.role is not None:
        return (want.role,)
    if want.mig is not None:
        return (MIG,)
    return FRACTION_FIRST if want.compute is None else MIG_FIRST


def choose(
    want: Request,
    subject: str,
    gpus: Sequence[Gpu],
    mig_gpus: Sequence[MigGpu],
    by_fraction: ByFraction,
    by_mig: ByMig,
) -> Placement | Plan:
    """How `want` is served. `gpus`: those that serve fractions; GpuportionError: by no way, now or ever."""
    full: list[GpuportionError] = []
    never: list[GpuportionError] = []
    for way in order(want):
        if not _selected(gpus if way is FRACTION else mig_gpus, want):
            continue
        try:
            found = by_fraction() if way is FRACTION else by_mig()
        except GpuportionError as problem:
            never.append(problem)
            continue
        if isinstance(found, (Placement, Plan)):
            return found
        full.append(found.error(subject))
    if full:
        raise _both(full)
    raise never[0] if never else _nobody(want, gpus, mig_gpus, by_mig)


def _selected(gpus: Sequence[Named], want: Request) -> bool:
    """Whether one of them may serve it."""
    if not want.select:
        return bool(gpus)
    return any(matches(gpu, word) for gpu in gpus for word in want.select)


def _nobody(want: Request, gpus: Sequence[Gpu], mig_gpus: Sequence[MigGpu], by_mig: ByMig) -> GpuportionError:
    """No GPU may serve it: by the role that it wants, or at all."""
    if order(want) == (MIG,):
        try:
            by_mig()
        except GpuportionError as problem:
            return problem
    if want.role is FRACTION and _selected(mig_gpus, want):
        return GpuportionError("GP109", what="a fraction of a GPU", why=NO_FRACTIONS + ".")
    everyone: list[Named] = [*gpus, *mig_gpus]
    known = sorted((gpu.index, gpu.model, gpu.uuid) for gpu in everyone)
    listed = ", ".join(f"{index} ({model}, {uuid})" for index, model, uuid in known)
    why = f"matches no GPU of this node. It has {listed}."
    return GpuportionError("GP107", key="GPU_SELECT", value=",".join(want.select), why=why)


def _both(full: Sequence[GpuportionError]) -> GpuportionError:
    """The first way's refusal, which says of the second one, too."""
    first, *others = full
    values: dict[str, Any] = dict(first.values)
    for other in others:
        values["holders"] = f"{values['holders']} The other way: {other.values['best']}."
    return GpuportionError("GP101", **values)
