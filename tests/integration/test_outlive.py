"""Containers allocate while their daemon is stopped, killed and exchanged: no call fails, and no limit lifts."""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.support.node import MB, Node
from tests.support.session import CudaSession, holds_to_1g

from gpuportion._region import lib

pytestmark = pytest.mark.containers

FIRST_LAYOUT_BYTES = 2048  # of a policy: it ended behind its sixteen GPUs
ROUNDS = 20 if os.environ.get("GPUPORTION_TEST_LONG") else 3


class Allocating:
    """One client that takes and gives back without a pause, and tries each time to have more than it may."""

    def __init__(self, client: CudaSession) -> None:
        self._client = client
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.rounds = 0
        self.wrong: list[str] = []

    def _run(self) -> None:
        number = 0  # of the allocations that succeeded
        try:
            while not self._over.is_set():
                fits, more = self._client.alloc(600 * MB), self._client.alloc(600 * MB)
                if (fits, more) != ("CUDA_SUCCESS", "CUDA_ERROR_OUT_OF_MEMORY"):
                    self.wrong.append(f"{fits}, then {more}")
                    return
                freed = self._client.ask("free", number)["result"]
                if freed != "CUDA_SUCCESS":
                    self.wrong.append(freed)
                number, self.rounds = number + 1, self.rounds + 1
        except Exception as error:
            self.wrong.append(repr(error))

    def goes_on(self, node: Node) -> None:
        """Wait until it has come around a few times more."""
        before = self.rounds
        node.until(lambda: self.rounds >= before + 5 or bool(self.wrong))

    def __enter__(self) -> Allocating:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()


@contextmanager
def allocating(node: Node) -> Iterator[Allocating]:
    with node.container("1G") as name, node.exec_session(name) as client, Allocating(client) as load:
        load.goes_on(node)
        yield load
        load.goes_on(node)
    assert load.wrong == []


def test_a_daemon_that_stops_is_not_missed(node: Node) -> None:
    """Nor one that is killed; the next one knows the grant."""
    with allocating(node) as load:
        for _ in range(ROUNDS):
            with node.daemon_down():
                load.goes_on(node)
            load.goes_on(node)
            node.kill_daemon()
            load.goes_on(node)
            node.start_daemon()
            (row,) = node.ps()
            assert row["state"] == "active" and row["gpus"][0]["limit"] == 10**9 // (1 << 20) * (1 << 20)
            load.goes_on(node)


def as_the_first_layout_was(policy: Path) -> None:
    """In place, for the container has this very file: version 1, and nothing behind the GPUs."""
    with policy.open("r+b") as file:
        assert struct.unpack_from("<QI", file.read(12)) == (0x31594C4F50505047, int(lib.GP_LAYOUT_VERSION))
        file.seek(8)
        file.write(struct.pack("<I", 1))
        file.truncate(FIRST_LAYOUT_BYTES)


def test_a_newer_daemon_serves_containers_of_an_older_one(node: Node) -> None:
    """Pages as the first layout had them: they hold, can be asked and changed, and go when their container ends."""
    with node.container("1G") as name:
        (row,) = node.ps()
        with node.daemon_down():
            as_the_first_layout_was(node.run_dir / "grants" / row["token"] / "policy")
        with node.exec_session(name) as client, Allocating(client) as load:
            load.goes_on(node)
            assert [one["token"] for one in node.ps()] == [row["token"]]
            node.until(lambda: node.ps()[0]["gpus"][0]["peak"] >= 600 * MB)
            node.kill_daemon()
            load.goes_on(node)
            node.start_daemon()
            node.gpuportion("why", name)
            load.goes_on(node)
        assert load.wrong == []
        node.gpuportion("update", name, "--gpu-memory", "2G")
        with node.exec_session(name) as client:
            assert client.ask("info")["total"] == 2 * 10**9 // (1 << 20) * (1 << 20)
            assert client.alloc(1200 * MB) == "CUDA_SUCCESS"
            assert client.alloc(1200 * MB) == "CUDA_ERROR_OUT_OF_MEMORY"
    node.until(lambda: not node.ps())


def test_a_store_that_is_lost_costs_no_container_its_portion(node: Node) -> None:
    """The next daemon finds it by the page that docker's container has mounted, under the id that docker gave it."""
    with node.container("1G", name="found-again") as name, node.exec_session(name) as client:
        (before,) = node.ps()
        with node.daemon_down():
            (node.run_dir / "store.sqlite3").write_bytes(b"no database" * 999)
        (row,) = node.ps()
        same = ("token", "container", "gpus", "state", "pids")
        assert {key: row[key] for key in same} == {key: before[key] for key in same}
        assert row["container"] == node.container_id(name)
        holds_to_1g(client)
        node.gpuportion("update", row["container"][:12], "--gpu-memory", "2G")
    node.until(lambda: not node.ps())
