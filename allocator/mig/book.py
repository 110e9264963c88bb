"""The records of our MIG instances on disk, and the one function through which they change.

    /var/lib/gpuportion/mig.json     {"next": 8, "records": [...]}; whole or as it was before, whoever is killed

Outside of /run, so that a lost store of grants does not make our instances strangers'. It is of one boot: after a
reboot there are no instances. Nothing is forced to the disk: what is lost with the machine's power is of that boot.
A file that cannot be read is put aside and said; its instances are then as if others had made them: never removed."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
from typing import Any, Final

from gpuportion.allocator.mig.records import PHASES, Change, Phase, Record

log: Final = logging.getLogger("gpuportiond")


class Book:
    """One process, one thread. Reading is free."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._next, self._records = _load(path)

    def __iter__(self) -> Any:
        return iter(list(self._records.values()))

    def get(self, key: int) -> Record | None:
        return self._records.get(key)

    def of(self, gpu: str) -> list[Record]:
        return [record for record in self._records.values() if record.gpu == gpu]

    def add(self, record: Record) -> Record:
        """Write an intent down; the record with its key. OSError: it could not be, so nothing may be done."""
        record = dataclasses.replace(record, key=self._next)
        self._write({**self._records, record.key: record}, self._next + 1)
        return record

    def apply(self, record: Record, change: Change, **values: Any) -> Record | None:
        """The only way in which a record changes; None where it is no more. KeyError: it cannot change so.

        Where it cannot be written, it holds in memory, and is written with the next change: what the driver has done is
        done, and a daemon that ended for it would know no more."""
        current = self._records[record.key]
        phase = PHASES[current.phase, change]
        records = {key: one for key, one in self._records.items() if key != record.key}
        after = None if phase is None else dataclasses.replace(current, phase=phase, **values)
        if after is not None:
            records[record.key] = after
        try:
            self._write(records, self._next)
        except OSError as problem:
            log.error("%s cannot be written: %s", self._path, problem.strerror)
            self._records = records
        return after

    def _write(self, records: dict[int, Record], number: int) -> None:
        kept = {"next": number, "records": [dataclasses.asdict(record) for record in records.values()]}
        os.makedirs(os.path.dirname(self._path), mode=0o755, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        with open(os.open(f"{self._path}.new", flags, 0o600), "w") as file:
            json.dump(kept, file)
        os.replace(f"{self._path}.new", self._path)
        self._next, self._records = number, records


def _load(path: str) -> tuple[int, dict[int, Record]]:
    try:
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)) as file:
            kept = json.load(file)
        records = [Record(**{**one, "phase": Phase(one["phase"])}) for one in kept["records"]]
        return int(kept["next"]), {record.key: record for record in records}
    except FileNotFoundError:
        return 1, {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as problem:
        log.warning("%s cannot be read (%s): MIG instances made before are left to themselves", path, problem)
        _put_aside(path)
        return 1, {}


def _put_aside(path: str) -> None:
    try:
        os.replace(path, f"{path}.broken")
    except OSError as problem:
        log.warning("%s could not be put aside: %s", path, problem)
