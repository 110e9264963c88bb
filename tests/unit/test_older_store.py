"""A store that an earlier daemon wrote is read by this one: an upgrade must not cost a running container its grant."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from gpuportion.allocator.devices import Share
from gpuportion.allocator.lifecycle import Event, State
from gpuportion.allocator.processes import Process
from gpuportion.allocator.store import BrokenStoreError, Store

FIRST: dict[str, object] = {
    # a row's `detail` as the first version wrote it, before shares could be MIG instances
    "kind": "container",
    "root": "/run/docker/runtime-runc/moby",
    "id": "c1",
    "uid": 0,
    "shares": [{"uuid": "GPU-1", "index": 0, "limit": 4 << 30, "exclusive": False, "context": 1 << 28}],
    "created": 12.5,
    "name": "train",
    "user": "",
    "request": {"memory": [4 << 30], "count": 1},
    "creator": {"pid": 7, "start": 99},
    "holder": {"pid": 8, "start": 100},
    "cgroups": ["/sys/fs/cgroup/pids/docker/c1"],
}


def written(path: Path, detail: dict[str, object]) -> str:
    db = sqlite3.connect(path)
    db.executescript(
        """
        CREATE TABLE "grant" (generation INTEGER PRIMARY KEY AUTOINCREMENT, token TEXT NOT NULL UNIQUE,
            state TEXT NOT NULL, boot TEXT NOT NULL, deadline REAL NOT NULL, detail TEXT NOT NULL);
        PRAGMA user_version = 1;
        """
    )
    row = ("a" * 32, "active", "boot-1", 72.5, json.dumps(detail))
    db.execute('INSERT INTO "grant" (token, state, boot, deadline, detail) VALUES (?, ?, ?, ?, ?)', row)
    db.commit()
    db.close()
    return str(path)


@pytest.mark.parametrize(
    "missing", [(), ("user",), ("name", "user", "request", "cgroups", "holder", "creator")]
)
def test_a_row_of_an_earlier_version_is_read_and_changed(tmp_path: Path, missing: tuple[str, ...]) -> None:
    """Fields that came later have their defaults."""
    detail = {key: value for key, value in FIRST.items() if key not in missing}
    store = Store(written(tmp_path / "s", detail))
    (row,) = store.live()
    assert row.shares == (Share("GPU-1", 0, 4 << 30, context=1 << 28),) and row.state is State.ACTIVE
    assert row.holder == (None if "holder" in missing else Process(8, 100)) and row.mig is None
    store.forget(store.apply(row, Event.EMPTIED))
    assert store.live() == []
    store.close()


@pytest.mark.parametrize(
    "detail",
    [
        pytest.param({**FIRST, "colour": "blue"}, id="of-a-later-version"),
        pytest.param({key: value for key, value in FIRST.items() if key != "shares"}, id="no-shares"),
        pytest.param({**FIRST, "shares": [{"uuid": "GPU-1"}]}, id="half-a-share"),
    ],
)
def test_a_row_that_is_not_understood_is_no_grant_of_nothing(
    tmp_path: Path, detail: dict[str, object]
) -> None:
    """The store is broken then, and what it knew is found again; a guess could give memory away twice."""
    with pytest.raises(BrokenStoreError):
        Store(written(tmp_path / "s", detail))
