"""What `gpuportion mig profiles`, `list` and `gc` show, as plain values. docs/protocol.md has the columns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gpuportion.allocator.devices import Gpu
from gpuportion.allocator.mig.geometry import Geometry, geometry_of
from gpuportion.allocator.mig.instances import Instance
from gpuportion.allocator.mig.node import MigNode
from gpuportion.allocator.mig.records import Phase, Record
from gpuportion.allocator.mig.seen import Seen
from gpuportion.sizes import MIB

IN_USE, IDLE, MAKING, REMOVING, FOREIGN = "in-use", "idle", "making", "removing", "foreign"

Names = Mapping[str, tuple[str, str]]
"""(container, name) of each live grant, by token."""


def profiles(
    node: MigNode, instances: Sequence[Instance], against: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Of each GPU that can have MIG. `against`: by UUID, why it serves nobody by MIG now, or ""."""
    found = []
    for gpu, reading in node.readings():
        board = geometry_of(reading.profiles)
        here = [one for one in instances if one.gpu == gpu.uuid]
        note = against[gpu.uuid]
        rows = [_profile(board, id, here, not note) for id in board.by_id]
        rows.sort(key=lambda row: (row["size"], row["compute"], row["name"]))
        shown = {"index": gpu.index, "uuid": gpu.uuid, "model": gpu.model, "mig": reading.mode}
        found.append({**shown, "note": note, "profiles": rows})
    return found


def _profile(board: Geometry, id: int, instances: Sequence[Instance], on: bool) -> dict[str, Any]:
    profile = board.by_id[id]
    taken = 0
    for one in instances:
        taken |= 0 if one.evictable else one.mask
    alike = sum(one.profile == id and not one.evictable for one in instances)
    room = min(board.room(taken)[board.shape_of[id]], max(0, profile.most - alike))
    return {
        "name": profile.name,
        "id": profile.id,
        "memory": profile.memory * MIB,
        "compute": profile.compute,
        "size": profile.size,
        "starts": list(profile.starts),
        "most": profile.most,
        "room": room if on else 0,
    }


def largest_free(node: MigNode, uuid: str, instances: Sequence[Instance]) -> int:
    """Bytes of the largest ordinary profile that a GPU has room for, by evicting idle instances if need be."""
    reading = node.reading(uuid)
    board = geometry_of(reading.profiles if reading else ())
    here = [one for one in instances if one.gpu == uuid]
    rows = [_profile(board, profile.id, here, True) for profile in board.profiles if not profile.variant]
    return max((row["memory"] for row in rows if row["room"]), default=0)


def instances(node: MigNode, records: Sequence[Record], names: Names, now: float) -> list[dict[str, Any]]:
    """Ours, and what others made; by GPU and place."""
    found = [of_record(node, record, names, now) for record in records]
    for gpu, _ in node.readings():
        found += [_foreign(node, gpu, seen) for seen in node.foreign(gpu.uuid, records)]
    return sorted(found, key=lambda row: (row["gpu"] is None, row["gpu"], row["start"]))


def of_record(node: MigNode, record: Record, names: Names, now: float) -> dict[str, Any]:
    gpu, compute = node.gpu(record.gpu), node.compute(record)
    container, name = names.get(record.token, (None, None))
    return {
        "gpu": gpu.index if gpu else None,
        "gpu_uuid": record.gpu,
        "gi": record.gi if record.gi >= 0 else None,
        "ci": record.ci if record.ci >= 0 else None,
        "uuid": record.uuid or None,
        "profile": record.name,
        "start": record.start,
        "size": record.size,
        "memory": record.memory,
        "compute": record.compute,
        "state": _state(record),
        "ours": True,
        "container": container,
        "name": name,
        "idle_s": round(now - record.idle_since, 3) if record.is_idle else None,
        "processes": list(compute.pids) if compute else [],
    }


def _state(record: Record) -> str:
    if record.phase is Phase.READY:
        return IDLE if record.is_idle else IN_USE
    return MAKING if record.phase is Phase.MAKING else REMOVING


def _foreign(node: MigNode, gpu: Gpu, seen: Seen) -> dict[str, Any]:
    boards = {each.uuid: geometry_of(reading.profiles) for each, reading in node.readings()}
    profile = boards[gpu.uuid].by_id.get(seen.profile)
    return {
        "gpu": gpu.index,
        "gpu_uuid": gpu.uuid,
        "gi": seen.id,
        "ci": seen.only.id if seen.only else None,
        "uuid": seen.only.uuid if seen.only else None,
        "profile": profile.name if profile else None,
        "start": seen.start,
        "size": seen.size,
        "memory": profile.memory * MIB if profile else None,
        "compute": profile.compute if profile else None,
        "state": FOREIGN,
        "ours": False,
        "container": None,
        "name": None,
        "idle_s": None,
        "processes": list(seen.pids),
    }


def summary(node: MigNode, uuid: str, records: Iterable[Record]) -> str:
    """`1g.5gb, 2g.10gb idle`: what is on a GPU, in a word for each instance."""
    records = [record for record in records if record.gpu == uuid]
    words = [(record.start, _word(record)) for record in records]
    for gpu, _ in node.readings():
        if gpu.uuid == uuid:
            rows = (_foreign(node, gpu, seen) for seen in node.foreign(uuid, records))
            words += [(row["start"], f"{row['profile'] or '?'} {FOREIGN}") for row in rows]
    return ", ".join(word for _, word in sorted(words))


def _word(record: Record) -> str:
    state = _state(record)
    return record.name if state == IN_USE else f"{record.name} {state}"
