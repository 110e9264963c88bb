"""The daemon's end of the editor, with its real process: asked, refused, ended and started again."""

from __future__ import annotations

import json
import os
import selectors
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gpuportion import wire
from gpuportion.allocator.devices import Share
from gpuportion.allocator.editor.link import PATIENCE, Asked, Editor, about_a_spec
from gpuportion.allocator.grant import Grant
from gpuportion.allocator.pending import Steps, Wait, drive
from gpuportion.errors import GpuportionError, RefusedError
from gpuportion.shim.request import Request
from gpuportion.sizes import MIB

SPEC: dict[str, Any] = {
    "ociVersion": "1.0.2",
    "process": {"args": ["sh"], "env": ["PATH=/bin", "GPU_MEMORY_LIMIT=512Mi"]},
    "annotations": {"io.kubernetes.cri.container-name": "train", "gpuportion.io/user": "ann"},
    "linux": {"mountLabel": "system_u:object_r:container_file_t:s0"},
}
ASKED = Asked(Request(memory=(512 * MIB,)), False, "ann", "train", "system_u:object_r:container_file_t:s0")
GRANT = Grant("a" * 32, "boot", "container", "/run", "c1", 0, (Share("GPU-1", 0, MIB),), 0.0, 0.0)


class Daemon:
    """As much of its loop as hears of the editor."""

    def __init__(self, folder: Path) -> None:
        self.selector = selectors.DefaultSelector()
        self.now = 0.0
        arguments = [f"--cdi-dir={folder}", f"--made={folder}/none"]
        self.editor = Editor(self.selector, arguments, clock=lambda: self.now)

    def wait(self, wait: Wait[Any]) -> Any:
        got: list[Any] = []
        wait.then(got.append)
        while not got:
            events = self.selector.select(30)
            assert events, "the editor does not answer"
            for key, _ in events:
                key.data()
        return got[0]

    def run(self, steps: Callable[[], Steps[Any]]) -> Any:
        """What they return, or the refusal that they raise."""

        def caught() -> Steps[Any]:
            try:
                return (yield from steps())
            except (GpuportionError, RefusedError) as problem:
                return problem

        return self.wait(drive(caught()))

    def read(self, spec: object) -> Any:
        def steps() -> Steps[Any]:
            with about_a_spec(self.editor) as conversation:
                return (yield from conversation.read(json.dumps(spec).encode(), "c1", {}))

        return self.run(steps)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    made = Daemon(tmp_path)
    yield made
    made.editor.close()
    assert made.editor.pid is None and not made.selector.get_map()
    made.selector.close()


def test_it_tells_what_a_spec_asks_for(daemon: Daemon) -> None:
    """All that the daemon needs before there is a grant."""
    assert daemon.read(SPEC) == ASKED
    assert daemon.read({}) == Asked(None, False, None, "", "")


def test_what_is_refused_there_is_refused_here(daemon: Daemon) -> None:
    """In the same words, and the next one is served."""
    bad = {"process": {"env": ["GPU_MEMORY_LIMIT=4000"]}}
    refusal = daemon.read(bad)
    assert isinstance(refusal, RefusedError) and refusal.code == "GP102"
    assert isinstance(daemon.read([]), RefusedError)
    assert daemon.read(SPEC) == ASKED


def test_an_edit_is_of_the_spec_that_was_read(daemon: Daemon) -> None:
    """Here one that fails, by the host: it has no CDI spec."""

    def steps() -> Steps[Any]:
        with about_a_spec(daemon.editor) as conversation:
            yield from conversation.read(json.dumps(SPEC).encode(), "c1", {})
            begun = conversation.begin_edit(GRANT, "/grants/a", {"GPU-1": 0})
            return (yield from conversation.edited(begun))

    refusal = daemon.run(steps)
    assert isinstance(refusal, RefusedError) and refusal.code == "GP302" and "CDI" in refusal.text


def test_many_large_specs_at_once_block_nobody(daemon: Daemon) -> None:
    """More than both ends' buffers hold: each is sent as the other end reads."""
    large = {**SPEC, "annotations": {**SPEC["annotations"], "x": "y" * (1 << 20)}}
    text = json.dumps(large).encode()

    def steps() -> Steps[Any]:
        with about_a_spec(daemon.editor) as conversation:
            return (yield from conversation.read(text, "c1", {}))

    waits = [drive(steps()) for _ in range(24)]
    assert [daemon.wait(wait) for wait in waits] == [ASKED] * 24


def test_who_asked_an_editor_that_ends_is_told_and_the_next_is_served(daemon: Daemon) -> None:
    """By another process; a signal that a service manager sends to all ends none."""
    assert daemon.read(SPEC) == ASKED
    first = daemon.editor.pid
    assert first is not None
    os.kill(first, signal.SIGTERM)
    assert daemon.read(SPEC) == ASKED and daemon.editor.pid == first
    os.kill(first, signal.SIGSTOP)

    def steps() -> Steps[Any]:
        with about_a_spec(daemon.editor) as conversation:
            waited = conversation.read(json.dumps(SPEC).encode(), "c1", {})
            os.kill(first, signal.SIGKILL)
            return (yield from waited)

    refusal = daemon.run(steps)
    assert isinstance(refusal, GpuportionError) and refusal.code == "GP306"
    assert daemon.editor.pid is None
    assert daemon.read(SPEC) == ASKED
    assert daemon.editor.pid not in (None, first)


def test_it_ends_with_the_daemon(daemon: Daemon) -> None:
    """However that ends: the socket does."""
    pid = daemon.editor.pid
    assert pid is not None and daemon.read(SPEC) == ASKED
    pidfd = os.pidfd_open(pid)
    daemon.selector.unregister(daemon.editor._sock)
    daemon.editor._sock.close()
    with selectors.DefaultSelector() as waits:
        waits.register(pidfd, selectors.EVENT_READ)
        assert waits.select(30)
    os.close(pidfd)
    assert daemon.editor._process is not None
    daemon.editor._process.wait()
    daemon.editor._process = None


def test_an_editor_that_says_nonsense_is_ended(daemon: Daemon, tmp_path: Path) -> None:
    """What has read a hostile spec is not believed everything."""
    nonsense = wire.frame(0, b"[]", b"")
    for words in (b"hello, I am no frame at all", nonsense):
        told = f"import os, sys; os.read(0, 1); os.write(0, {words!r}); os.read(0, 1 << 20); sys.stdin.read()"
        daemon.editor._command = [sys.executable, "-c", told]
        daemon.editor.close()
        refusal = daemon.read(SPEC)
        assert isinstance(refusal, GpuportionError) and refusal.code == "GP306"
        assert daemon.editor.pid is None


def test_who_was_answered_before_nonsense_came_has_the_answer(daemon: Daemon) -> None:
    """The others are told that it ended."""
    head = {"request": None, "sandbox": False, "user": None, "name": "", "label": ""}
    number = next(daemon.editor._numbers) + 1
    whole = wire.frame(0, json.dumps({**head, "n": number}).encode(), b"")
    script = f"import os, sys; os.read(0, 1); os.write(0, {whole + b'nonsense' * 4!r}); sys.stdin.read()"
    daemon.editor.close()
    daemon.editor._command = [sys.executable, "-c", script]

    def steps() -> Steps[Any]:
        with about_a_spec(daemon.editor) as conversation:
            return (yield from conversation.read(b"{}", "c1", {}))

    first, second = drive(steps()), drive(_caught(steps))
    assert daemon.wait(first) == Asked(None, False, None, "", "")
    assert daemon.wait(second).code == "GP306"


def _caught(steps: Callable[[], Steps[Any]]) -> Steps[Any]:
    try:
        return (yield from steps())
    except GpuportionError as problem:
        return problem


def test_what_fits_no_frame_is_refused_and_ends_nobody(daemon: Daemon) -> None:
    """A spec of the largest size whose annotation is told back."""
    pid = daemon.editor.pid
    refusal = daemon.read({"annotations": {"gpuportion.io/user": "x" * ((16 << 20) - 60)}})
    assert isinstance(refusal, RefusedError) and refusal.code == "GP304", refusal
    assert daemon.read(SPEC) == ASKED and daemon.editor.pid == pid


def test_an_editor_that_answers_nobody_is_ended(daemon: Daemon) -> None:
    """It is stopped, or hangs: who waits is told in time, and the next has another one."""
    assert daemon.read(SPEC) == ASKED
    pid = daemon.editor.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)

    def steps() -> Steps[Any]:
        with about_a_spec(daemon.editor) as conversation:
            return (yield from conversation.read(b"{}", "c1", {}))

    waited = drive(_caught(steps))
    daemon.now = PATIENCE
    daemon.editor.look()
    assert not waited.is_over
    daemon.now = PATIENCE + 1
    daemon.editor.look()
    assert waited.is_over and daemon.wait(waited).code == "GP306"
    assert daemon.read(SPEC) == ASKED and daemon.editor.pid != pid
    daemon.now += PATIENCE + 1
    daemon.editor.look()
    assert daemon.editor.pid is not None  # nobody waits


def test_another_editor_is_not_asked_for_a_spec_that_it_has_not_read(daemon: Daemon) -> None:
    """The one that had it ended while something else was waited for."""

    def steps() -> Steps[Any]:
        with about_a_spec(daemon.editor) as conversation:
            yield from conversation.read(json.dumps(SPEC).encode(), "c1", {})
            daemon.editor.close()
            begun = conversation.begin_edit(GRANT, "/grants/a", {"GPU-1": 0})
            return (yield from conversation.edited(begun))

    refusal = daemon.run(steps)
    assert refusal.code == "GP306" and "ended at that moment" in refusal.text
