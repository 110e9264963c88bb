"""What `gpuportion ps` and `gpuportion node` show, as plain values. docs/protocol.md has the columns."""

from __future__ import annotations

from typing import Any

from gpuportion.allocator.devices import Gpu, Load, room
from gpuportion.allocator.lifecycle import State
from gpuportion.allocator.pages import LedgerView
from gpuportion.allocator.store import Grant


def of_grant(grant: Grant, view: LedgerView, now: float, *, with_token: bool) -> dict[str, Any]:
    """One grant, with what its container's ledger says. `now` in seconds of CLOCK_BOOTTIME."""
    gpus = [
        {"index": share.index, "uuid": share.uuid, "limit": share.limit, "used": use.used, "peak": use.peak}
        for share, use in zip(grant.shares, view.gpus, strict=False)
    ]
    row = {
        "container": grant.id,
        "name": grant.name,
        "user": int(grant.owner) if grant.owner.isascii() and grant.owner.isdigit() else grant.owner,
        "kind": grant.kind,
        "state": grant.state.value,
        "gpus": gpus,
        "compute": grant.mig and grant.mig.compute * 100 // grant.mig.compute_total,
        "enforced_by": "mig" if grant.mig else "interposer",
        "refusals": sum(use.refusals for use in view.gpus),
        "age_s": round(now - grant.created, 3),
        "pids": [grant.holder.pid] if grant.holder and grant.state is State.ACTIVE else [],
    }
    optional: dict[str, Any] = {"token": grant.token if with_token else "", "damaged": view.damaged}
    if grant.mig:
        optional["mig"] = {name: getattr(grant.mig, name) for name in ("uuid", "profile", "gi", "ci")}
    return {**row, **{key: value for key, value in optional.items() if value}}


def of_refusals(grant: Grant, view: LedgerView, time: float) -> dict[str, Any]:
    """The last allocations that a container was refused, as its own processes noted them. `time` in seconds since
    1970."""
    index = {place: share.index for place, share in enumerate(grant.shares)}
    notes = [
        {
            "number": note.number,
            "age_s": max(0, round(time - note.time)),
            "gpu": index.get(note.gpu),
            "pid": note.pid,
            "call": note.api,
            "asked": note.asked,
            "used": note.used,
            "grant": note.limit,
        }
        for note in view.notes
    ]
    count = sum(use.refusals for use in view.gpus)
    row = {"container": grant.id, "name": grant.name, "count": count, "refusals": notes}
    return {**row, "damaged": view.damaged} if view.damaged else row


def of_gpu(gpu: Gpu, load: Load) -> dict[str, Any]:
    """One GPU and what of it is granted, in bytes."""
    return {
        "index": gpu.index,
        "uuid": gpu.uuid,
        "model": gpu.model,
        "role": "fraction",
        "total": gpu.total,
        "reserved": gpu.reserved,
        "unmanaged": gpu.unmanaged,
        "unaccounted": gpu.unaccounted,
        "margin": gpu.margin,
        "granted": load.taken,
        "free": 0 if gpu.trouble else room(gpu, load),
        "used": gpu.used,
        "health": gpu.trouble or "ok",
    }
