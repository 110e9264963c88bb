"""The GPUs that are cut by MIG, as the daemon knows them now, and what is on them as the planner takes it.

Readings come from two sides: once a second, and from every act, at its end. One that was begun before the last act on
its GPU ended may show what is gone, or not show what was made; it is left out. Decides nothing and changes nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from gpuportion.allocator.devices import Gpu
from gpuportion.allocator.mig import modes
from gpuportion.allocator.mig.geometry import geometry_of
from gpuportion.allocator.mig.instances import Instance, MigGpu
from gpuportion.allocator.mig.portion import MigPortion
from gpuportion.allocator.mig.records import Phase, Record
from gpuportion.allocator.mig.roles import Roles
from gpuportion.allocator.mig.seen import Compute, MigReading, Seen
from gpuportion.allocator.processes import start_of


class MigNode:
    def __init__(self, roles: Roles) -> None:
        self._roles = roles
        self._gpus: dict[str, Gpu] = {}
        self._readings: dict[str, MigReading] = {}
        self._slices: dict[str, int] = {}
        self._acts: Counter[str] = Counter()
        self._changed: dict[str, float] = {}
        self.version = 0
        """Another one whenever a reading is."""
        self.has_looked = False
        self.stuck: dict[str, str] = {}
        """By UUID, why a GPU can serve nobody though the driver shows it well."""

    # Readings

    def update(self, gpus: Iterable[Gpu], readings: Mapping[str, MigReading]) -> None:
        """A new sample came."""
        self._gpus = {gpu.uuid: gpu for gpu in gpus}
        self.has_looked = True
        for uuid, reading in readings.items():
            if self.is_still(uuid) and reading.at >= self._changed.get(uuid, 0.0):
                self._take(uuid, reading)
        for uuid in self._readings.keys() - readings.keys():
            del self._readings[uuid]
            self.version += 1

    def begin(self, uuid: str) -> None:
        """An act on this GPU is handed over."""
        self._acts[uuid] += 1

    def end(self, uuid: str, reading: MigReading | None, at: float) -> None:
        """It has ended, at this time of CLOCK_MONOTONIC, and the GPU is now like this, as far as it could be read."""
        self._acts[uuid] -= 1
        self._changed[uuid] = at
        if reading is not None:
            self._take(uuid, reading)

    def _take(self, uuid: str, reading: MigReading) -> None:
        """How many compute slices a GPU has is remembered: a driver that fails does not tell, and it stays the same."""
        if self._readings.get(uuid) is reading:
            return
        self._readings[uuid] = reading
        self.version += 1
        if reading.profiles:
            self._slices[uuid] = geometry_of(reading.profiles).compute

    def is_still(self, uuid: str) -> bool:
        """Whether no act on it is under way."""
        return not self._acts[uuid]

    def reading(self, uuid: str) -> MigReading | None:
        """MIG on a GPU as it was read last; None: it has none, or nothing is known of it yet."""
        return self._readings.get(uuid)

    def seen(self, uuid: str) -> tuple[Seen, ...] | None:
        """The instances of a GPU; None where they are not known."""
        reading = self._readings.get(uuid)
        return None if reading is None or reading.trouble else reading.instances

    # What the planner takes

    def gpus(self) -> list[MigGpu]:
        """Those with the MIG role, by index."""
        mig = self._roles.mig
        if not mig:
            return []
        found = sorted(self._gpus.values(), key=lambda gpu: gpu.index)
        return [self._mig_gpu(gpu) for gpu in found if gpu.uuid in mig]

    def _mig_gpu(self, gpu: Gpu) -> MigGpu:
        reading = self._readings.get(gpu.uuid)
        board = geometry_of(reading.profiles if reading else ())
        trouble = gpu.trouble or modes.trouble(gpu.index, True, reading) or self.stuck.get(gpu.uuid, "")
        return MigGpu(gpu.index, gpu.uuid, gpu.model, board, trouble)

    def instances(
        self, records: Sequence[Record], going: Collection[int], labels: Mapping[str, str]
    ) -> list[Instance]:
        """Ours as they were written down, and what else the driver shows. `going`: keys of those whose removal is under
        way: their room can be planned with, for whatever follows is done after it."""
        found = [self._ours(record, labels) for record in records if record.key not in going]
        for uuid in self._readings:
            found += [
                Instance(uuid, seen.id, seen.profile, seen.start, seen.size, holder="others")
                for seen in self.foreign(uuid, records)
            ]
        return found

    def _ours(self, record: Record, labels: Mapping[str, str]) -> Instance:
        idle = record.is_idle and not self.users(record)
        holder = labels.get(record.token, "")
        if record.phase is Phase.REMOVING:
            holder = "an instance that is being removed"
        elif not record.token:
            holder = "processes without a grant"
        return Instance(
            record.gpu,
            record.gi if record.gi >= 0 else -record.key,
            record.profile,
            record.start,
            record.size,
            ours=True,
            idle_since=record.idle_since if idle else None,
            whole=record.phase is Phase.READY and not record.once,
            holder=holder,
        )

    # What is shown

    def foreign(self, uuid: str, records: Sequence[Record]) -> Iterator[Seen]:
        """What is on a GPU and not ours."""
        own = [record for record in records if record.gpu == uuid]
        for seen in self.seen(uuid) or ():
            if not any(record.is_same(seen) for record in own):
                yield seen

    def compute(self, record: Record) -> Compute | None:
        """The compute instance of a record as the driver showed it last."""
        found = next((one for one in self.seen(record.gpu) or () if record.is_same(one)), None)
        return found.only if found else None

    def users(self, record: Record) -> tuple[int, ...]:
        """Pids on an instance that were there at the last look and live. Who has ended since is in nobody's way:
        whether the instance is really free, is looked at again before it is touched."""
        compute = self.compute(record)
        return tuple(pid for pid in compute.pids if start_of(pid) is not None) if compute else ()

    def gpu(self, uuid: str) -> Gpu | None:
        return self._gpus.get(uuid)

    def readings(self) -> list[tuple[Gpu, MigReading]]:
        """All GPUs that can have MIG, by index."""
        gpus = sorted(self._gpus.values(), key=lambda gpu: gpu.index)
        return [(gpu, self._readings[gpu.uuid]) for gpu in gpus if gpu.uuid in self._readings]

    def portion(self, record: Record) -> MigPortion:
        """What a grant gets with the instance of a record, made or to be made. KeyError: its GPU is gone."""
        gpu = self._gpus[record.gpu]
        return MigPortion(
            gpu=gpu.uuid,
            index=gpu.index,
            minor=gpu.minor,
            gi=record.gi,
            ci=record.ci,
            uuid=record.uuid,
            profile=record.name,
            memory=record.memory,
            compute=record.compute,
            compute_total=self._slices[gpu.uuid],
        )
