"""The editor of specs is a process of its own: its end costs one create, and its life is the daemon's."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

from tests.support.daemon import Daemon, Sleeper

from gpuportion import wire


def editor_of(daemon: Daemon) -> int:
    children = Path(f"/proc/{daemon.pid}/task/{daemon.pid}/children").read_text().split()
    (found,) = (pid for pid in children if b"editor" in Path(f"/proc/{pid}/cmdline").read_bytes())
    return int(found)


def test_a_create_whose_editor_ends_is_refused_and_holds_nothing(daemon: Daemon) -> None:
    """Others are answered meanwhile, and the next one gets what it asks for."""
    free = daemon.gpus()[0]["free"]
    daemon.create()  # the daemon is ready before its editor has to be
    editor = editor_of(daemon)
    os.kill(editor, signal.SIGSTOP)
    with daemon.connect() as asking:
        config = json.dumps({"process": {"env": ["GPU_MEMORY_LIMIT=4G"]}}).encode()
        head = {"v": 1, "op": "create", "verb": "create", "root": "/r", "id": "c1", "preload_bytes": 0}
        wire.send(asking, wire.Message(head, config, wire.REQUEST))
        assert daemon.ps() == []  # who came later is answered: the editor has been asked by now
        os.kill(editor, signal.SIGKILL)
        answer = wire.receive(asking)
    assert answer.status == wire.REFUSED
    assert answer.body.startswith(b"GP306") and b"Start the container again" in answer.body
    assert daemon.gpus()[0]["free"] == free
    with Sleeper() as container:
        granted = daemon.create("GPU_MEMORY_LIMIT=4G")
        assert granted.spec is not None and editor_of(daemon) != editor
        daemon.confirm(granted.token, container)
    assert "is started for the next container" in daemon.log.read_text()


def test_no_editor_outlives_its_daemon(daemon: Daemon) -> None:
    """Nor does a killed one leave it."""
    for end in (daemon.kill, daemon.stop):
        pidfd = os.pidfd_open(editor_of(daemon))
        end()
        daemon.until(lambda pidfd=pidfd: _has_ended(pidfd))  # type: ignore[misc]
        os.close(pidfd)
        daemon.start()


def _has_ended(pidfd: int) -> bool:
    try:
        signal.pidfd_send_signal(pidfd, 0)
    except ProcessLookupError:
        return True
    return False
