"""Memory of containers whose last process ends unheard: only their first ones are watched."""

from __future__ import annotations

import time

from tests.support.daemon import Cgroup, Daemon, Sleeper

RARELY = 1.5
"""Seconds after which an ending container is looked at but once a second (hints.LAST)."""


def test_memory_of_a_container_that_lingered_is_granted_at_once(daemon: Daemon, cgroup: Cgroup) -> None:
    """Its last process ends between two looks: before somebody is refused, the daemon looks again."""
    granted = daemon.create("GPU_MEMORY_LIMIT=80G", id="lingering")
    with Sleeper() as last:
        with Sleeper() as first:
            cgroup.add(first.pid)
            cgroup.add(last.pid)
            daemon.confirm(granted.token, first)
        time.sleep(RARELY)
        assert [row["state"] for row in daemon.ps()] == ["active"]
    again = daemon.create("GPU_MEMORY_LIMIT=80G", id="next")
    with Sleeper() as container:
        daemon.confirm(again.token, container)
    daemon.until(lambda: not daemon.ps())
