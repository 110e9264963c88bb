"""What is left of a released grant: it goes beside the answers, once, and again where it could not."""

from __future__ import annotations

import os
import selectors
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpuportion.allocator import grants as grants_module
from gpuportion.allocator import pages
from gpuportion.allocator.devices import Share
from gpuportion.allocator.grant import Intent
from gpuportion.allocator.grants import CONTAINER, Grants
from gpuportion.allocator.hints import Hints
from gpuportion.allocator.recovery import recover
from gpuportion.allocator.store import Store
from gpuportion.allocator.sweeper import Gone, at_once

INTENT = Intent(
    CONTAINER, (Share("GPU-00000000-0000-0000-0000-000000000001", 0, 1 << 30),), {}, root="/r", id="a"
)


class Daemon:
    """As much of one as has grants; what another thread is to take away waits in `to_go`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.hints = Hints(selectors.DefaultSelector())
        self.store = Store(str(folder / "store"))
        self.grants = Grants(
            self.store,
            self.hints,
            str(folder),
            reservation_timeout=3600,
            remove_more=self.remove_more,
            on_instance=lambda token: False,
        )
        recover(self.grants, survivors=lambda tokens: ())
        self.to_go: list[Gone] = []
        self.grants.sweep = self.to_go.append
        self.trouble: OSError | None = None

    def remove_more(self, token: str) -> None:
        if self.trouble is not None:
            raise self.trouble

    def granted(self) -> str:
        grant = self.grants.reserve(INTENT)
        self.grants.make_pages(grant, libcuda="/c", libnvml="/n", ledger="/l")
        return grant.token

    def undo(self, token: str) -> None:
        grant = self.store.get(token)
        assert grant is not None
        self.grants.undo(grant)

    def rows(self) -> set[str]:
        return {grant.token for grant in self.store}

    def sweep(self) -> None:
        while self.to_go:
            at_once(self.to_go.pop())


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    made = Daemon(tmp_path)
    yield made
    made.hints.close()
    made.store.close()
    for name in os.listdir(tmp_path / "grants"):
        pages.remove(f"{tmp_path}/grants/{name}")


def test_memory_is_free_before_the_pages_are_gone(daemon: Daemon) -> None:
    """Whoever asks next has not to wait for the kernel."""
    token = daemon.granted()
    daemon.undo(token)
    assert daemon.grants.live() == [] and daemon.grants.tally.loads == {}
    assert os.path.exists(f"{daemon.folder}/grants/{token}/policy") and daemon.store.get(token) is not None
    daemon.sweep()
    assert os.listdir(daemon.folder / "grants") == [] and daemon.store.get(token) is None


def test_the_note_goes_before_the_row(daemon: Daemon) -> None:
    """One without a row would tell that rows were lost."""
    token = daemon.granted()
    grant = daemon.store.get(token)
    assert grant is not None
    daemon.grants.notes.write(grant)
    daemon.undo(token)
    seen: list[tuple[bool, bool]] = []
    gone = daemon.to_go.pop()
    there = (os.path.exists(gone.note), daemon.store.get(token) is not None)
    at_once(gone._replace(then=lambda _: seen.append((os.path.exists(gone.note), token in daemon.rows()))))
    assert there == (True, True) and seen == [(False, True)]
    gone.then(None)
    assert daemon.rows() == set()


def test_pages_are_taken_away_once(daemon: Daemon) -> None:
    """However often the grant is looked at meanwhile."""
    token = daemon.granted()
    daemon.undo(token)
    daemon.grants.look(token)
    daemon.grants.look(token)
    assert len(daemon.to_go) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: mounts")
def test_pages_that_cannot_go_are_tried_again(
    daemon: Daemon, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row stays until they are gone, and the log says what is in the way."""
    monkeypatch.setattr(grants_module, "RETRY", 0.0)
    token = daemon.granted()
    place = daemon.folder / "grants" / token / "somebodys"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(place)], check=True)
    try:
        daemon.undo(token)
        daemon.sweep()
        assert daemon.store.get(token) is not None and daemon.hints.due(grants_module.now()) == [token]
        assert "could not be removed, trying again: [Errno 16] Device or resource busy" in caplog.text
    finally:
        subprocess.run(["umount", str(place)], check=True)
    daemon.grants.look(token)
    daemon.sweep()
    assert daemon.store.get(token) is None and os.listdir(daemon.folder / "grants") == []


def test_what_others_made_for_it_goes_first(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where that fails, the pages stay for the next look."""
    monkeypatch.setattr(grants_module, "RETRY", 0.0)
    token = daemon.granted()
    daemon.trouble = OSError(5, "no luck")
    daemon.undo(token)
    assert daemon.to_go == [] and daemon.hints.due(grants_module.now()) == [token]
    daemon.trouble = None
    daemon.grants.look(token)
    daemon.sweep()
    assert daemon.store.get(token) is None
