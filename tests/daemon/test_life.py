"""The life of a grant, seen from outside of a real daemon."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.support.daemon import CONFIG, GB, MIB, Cgroup, Daemon, Granted, Sleeper

from gpuportion.errors import RefusedError

FOUR = 4 * GB // MIB * MIB


def test_a_container_without_a_request_is_left_as_it_is(daemon: Daemon) -> None:
    """No token, no row, no body: config.json goes on untouched."""
    assert daemon.create() == Granted("", None)
    assert daemon.ps() == []


def test_a_grant_counts_from_its_reservation_to_the_end_of_its_container(daemon: Daemon) -> None:
    """Reserved, active and gone; the memory is given to others only then, and no page stays."""
    free = daemon.gpus()[0]["free"]
    granted = daemon.create("GPU_MEMORY_LIMIT=4G")
    assert [row["state"] for row in daemon.ps()] == ["reserved"]
    assert daemon.gpus()[0]["free"] == free - FOUR
    with Sleeper() as container:
        daemon.confirm(granted.token, container)
        assert [(row["state"], row["pids"]) for row in daemon.ps()] == [("active", [container.pid])]
        assert daemon.gpus()[0]["granted"] == FOUR
    daemon.until(lambda: not daemon.ps())
    assert daemon.gpus()[0]["free"] == free
    daemon.until(lambda: not daemon.folders())


def test_the_pages_are_there_before_the_answer(daemon: Daemon) -> None:
    """The mounts of the edited spec name files that exist, with the image's own preload kept."""
    granted = daemon.create("GPU_MEMORY_LIMIT=4G", preload=b"/usr/lib/libown.so\n")
    assert granted.spec is not None
    folder = daemon.run_dir / "grants" / granted.token
    ours = [mount["source"] for mount in granted.spec["mounts"] if mount["source"].startswith(str(folder))]
    assert {str(Path(source).relative_to(folder)) for source in ours} == {
        "policy",
        "ledger/ledger",
        "ld.so.preload",
    }
    assert all(Path(source).is_file() for source in ours)
    assert "/usr/lib/libown.so" in (folder / "ld.so.preload").read_text()
    with Sleeper() as container:
        daemon.confirm(granted.token, container)


def test_a_reservation_ends_with_whoever_was_creating_the_container(tmp_path: Path) -> None:
    """A runtime that fails before the hook leaves nothing reserved, told or not, long before the timeout."""
    code = (
        "import os, sys; from pathlib import Path; from tests.support.daemon import Daemon;"
        "print(Daemon(Path(sys.argv[1])).create('GPU_MEMORY_LIMIT=4G').token)"
    )
    with Daemon(tmp_path, options=["--reservation-timeout", "3600"]) as daemon:
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)],
            capture_output=True,
            text=True,
            check=True,
            cwd=Path(__file__).parents[2],
        )
        assert len(done.stdout.strip()) == 32
        daemon.until(lambda: not daemon.ps())


def test_nothing_is_reserved_for_one_who_is_gone(tmp_path: Path) -> None:
    """A launcher that was killed while it waited for a busy daemon: nobody is left whose end would tell."""
    code = (
        "import sys; from pathlib import Path; from gpuportion import wire;"
        "from tests.support.daemon import CONFIG, Daemon;"
        "head = dict(v=1, op='create', verb='create', root='', id='c1', bundle='/tmp', preload_bytes=0);"
        "body = CONFIG.read_bytes().replace(b'\"PATH=', b'\"GPU_MEMORY_LIMIT=4G\", \"PATH=', 1);"
        "wire.send(Daemon(Path(sys.argv[1])).connect(), wire.Message(head, body, wire.REQUEST))"
    )
    with Daemon(tmp_path, options=["--reservation-timeout", "3600"]) as daemon:
        os.kill(daemon.pid, signal.SIGSTOP)
        try:
            subprocess.run(
                [sys.executable, "-W", "ignore", "-c", code, str(tmp_path)],
                check=True,
                cwd=Path(__file__).parents[2],
            )
        finally:
            os.kill(daemon.pid, signal.SIGCONT)
        assert daemon.ask("ping").head["ready"]
        assert daemon.ps() == [] and daemon.folders() == set()
        assert "has ended while it waited" in daemon.tail()


def test_a_container_that_nobody_would_confirm_is_not_restored(daemon: Daemon) -> None:
    """crun calls no hook when it restores; runc does."""
    spec = json.loads(CONFIG.read_text())
    spec["process"]["env"].append("GPU_MEMORY_LIMIT=4G")
    asked: dict[str, Any] = {"verb": "restore", "root": "", "id": "c1", "bundle": "/b", "preload_bytes": 0}
    body = json.dumps(spec).encode()
    with pytest.raises(RefusedError, match="crun restores a container without calling its hooks"):
        daemon.ask("create", body=body, runtime="/usr/bin/crun", **asked)
    assert daemon.ps() == []
    token = daemon.ask("create", body=body, runtime="/usr/bin/runc", **asked).head["token"]
    with Sleeper() as container:
        daemon.confirm(token, container)


def test_a_create_that_cannot_be_finished_leaves_nothing(daemon: Daemon) -> None:
    """The CDI spec is missing, which is found when the pages are made: row and pages go again."""
    (spec,) = (daemon.run_dir / "cdi").iterdir()
    text = spec.read_text()
    spec.unlink()
    with pytest.raises(RefusedError, match="GP302"):
        daemon.create("GPU_MEMORY_LIMIT=4G")
    assert daemon.ps() == []
    daemon.until(lambda: not daemon.folders())
    spec.write_text(text)
    with Sleeper() as container:
        daemon.confirm(daemon.create("GPU_MEMORY_LIMIT=4G").token, container)


def test_a_reservation_that_nobody_confirms_ends_and_a_late_confirm_is_refused(tmp_path: Path) -> None:
    """Its container must not start: the memory may be somebody else's by now."""
    with Daemon(tmp_path, options=["--reservation-timeout", "0.2"]) as daemon, Sleeper() as container:
        granted = daemon.create("GPU_MEMORY_LIMIT=4G")
        daemon.until(lambda: not daemon.ps())
        with pytest.raises(RefusedError, match="GP305 the reservation of this container"):
            daemon.confirm(granted.token, container)


def test_a_confirm_with_another_process_than_it_says_is_refused(daemon: Daemon) -> None:
    """The descriptor decides, not the number: a pid can be somebody else's by the time it is looked at."""
    granted = daemon.create("GPU_MEMORY_LIMIT=4G")
    with Sleeper() as one, Sleeper() as other:
        with pytest.raises(RefusedError, match="GP304"):
            daemon.ask("confirm", token=granted.token, pid=one.pid, fds=(other.pidfd,))
        with pytest.raises(RefusedError, match="no pidfd"):
            daemon.ask("confirm", token=granted.token, pid=one.pid, fds=(0,))
        daemon.confirm(granted.token, one)
        daemon.confirm(granted.token, one)  # a hook may be run again
        with pytest.raises(RefusedError, match="another process"):
            daemon.confirm(granted.token, other)


def test_a_hint_releases_nothing_while_the_container_lives(daemon: Daemon) -> None:
    """`delete` of a running container fails; its note was sent before."""
    granted = daemon.create("GPU_MEMORY_LIMIT=4G")
    with Sleeper() as container:
        daemon.confirm(granted.token, container)
        daemon.ask("deleted", root="/run/test", id="c1")
        assert [row["state"] for row in daemon.ps()] == ["active"]
    daemon.until(lambda: not daemon.ps())


def test_hints_about_nothing_are_answered(daemon: Daemon) -> None:
    """They come twice, late, or for a container that asked for nothing."""
    for _ in range(2):
        daemon.ask("deleted", root="", id="nobody")


def test_processes_that_outlive_the_first_one_keep_the_grant(daemon: Daemon, cgroup: Cgroup) -> None:
    """With --pid=host, and after `docker exec`, others of the cgroup may still hold GPU memory."""
    granted = daemon.create("GPU_MEMORY_LIMIT=4G")
    with Sleeper() as other:
        with Sleeper() as first:
            cgroup.add(first.pid)
            cgroup.add(other.pid, below="nested")
            daemon.confirm(granted.token, first)
        daemon.ask("deleted", root="/run/test", id="c1")
        assert [row["state"] for row in daemon.ps()] == ["active"]
    daemon.until(lambda: not daemon.ps())


def test_an_id_is_used_again_while_its_last_container_ends(daemon: Daemon, cgroup: Cgroup) -> None:
    """`docker restart`: the old grant ends by itself, the new one is not mistaken for it."""
    old = daemon.create("GPU_MEMORY_LIMIT=40G")
    with Sleeper() as lingering, Sleeper() as second:
        with Sleeper() as first:
            cgroup.add(first.pid)
            cgroup.add(lingering.pid)
            daemon.confirm(old.token, first)
        new = daemon.create("GPU_MEMORY_LIMIT=40G")
        assert new.token != old.token
        daemon.ask("deleted", root="/run/test", id="c1")
        daemon.confirm(new.token, second)
        assert [row["state"] for row in daemon.ps()] == ["active", "active"]
        lingering.end()
        daemon.until(lambda: [row["token"] for row in daemon.ps()] == [new.token])


def test_memory_of_a_container_that_just_ended_is_granted_at_once(daemon: Daemon) -> None:
    """`docker restart` of a container that has the whole GPU: nobody waits for a timer."""
    for number in range(20):
        granted = daemon.create("GPU_MEMORY_LIMIT=80G", id=f"c{number}")
        with Sleeper() as container:
            daemon.confirm(granted.token, container)
    daemon.until(lambda: not daemon.ps())


def test_a_creator_that_asks_again_holds_one_reservation(daemon: Daemon) -> None:
    """Its first answer got lost with the connection; together they would not fit."""
    first = daemon.create("GPU_MEMORY_LIMIT=80G")
    second = daemon.create("GPU_MEMORY_LIMIT=80G")
    assert [row["token"] for row in daemon.ps()] == [second.token] != [first.token]
    with Sleeper() as container:
        daemon.confirm(second.token, container)


def test_of_twenty_that_ask_at_once_ten_fit(daemon: Daemon) -> None:
    """Two starts at once never both take the last gigabyte; who is refused reads who has it."""
    size = daemon.gpus()[0]["free"] // 10 // MIB

    def create(number: int) -> Granted | RefusedError:
        try:
            return daemon.create(f"GPU_MEMORY_LIMIT={size}Mi", id=f"container-{number:02}")
        except RefusedError as refused:
            return refused

    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(create, range(20)))
    granted = [answer for answer in answers if isinstance(answer, Granted)]
    assert len(granted) == len(daemon.ps()) == 10
    for answer in answers:
        if isinstance(answer, RefusedError):
            assert answer.code == "GP101"
            assert answer.text.count("container-") >= 8
    with Sleeper() as container:
        for each in granted:
            daemon.confirm(each.token, container)


def test_what_cannot_be_enforced_yet_is_refused(daemon: Daemon) -> None:
    """Compute shares and MIG are never accepted and left out."""
    for env in ("GPU_COMPUTE=30", "GPU_MIG=1g.10gb"):
        with pytest.raises(RefusedError, match="GP109"):
            daemon.create("GPU_MEMORY_LIMIT=4G", env)
    with pytest.raises(RefusedError, match="GP109"):
        daemon.create("GPU_MEMORY_LIMIT=4G", "GPU_ROLE=mig")
    assert daemon.ps() == []


def test_whole_gpus_are_exclusive(tmp_path: Path) -> None:
    """GPU_COUNT alone: nobody else gets a portion of them."""
    with Daemon(tmp_path, sim="a100-80gb:2") as daemon, Sleeper() as container:
        whole = daemon.create("GPU_COUNT=1", id="whole")
        daemon.confirm(whole.token, container)
        part = daemon.create("GPU_MEMORY_LIMIT=1G", id="part")
        daemon.confirm(part.token, container)
        assert [row["gpus"][0]["index"] for row in daemon.ps()] == [0, 1]
        with pytest.raises(RefusedError, match="GP101"):
            daemon.create("GPU_COUNT=1", id="another")


def test_a_plain_process_has_a_portion_until_it_ends(daemon: Daemon) -> None:
    """`gpuportion exec`: the caller's pidfd is the container."""
    code = (
        "import json, os, sys; from pathlib import Path; from tests.support.daemon import Daemon;"
        "fd = os.pidfd_open(os.getpid()); d = Daemon(Path(sys.argv[1]));"
        "a = d.ask('exec', request={'GPU_MEMORY_LIMIT': '1G'}, argv0='train', mounts=False, fds=(fd,));"
        "print(json.dumps(a.head), flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(daemon.run_dir.parent)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    ) as caller:
        assert caller.stdout is not None
        caller.stdout.readline()
        (row,) = daemon.ps()
        assert (row["kind"], row["state"], row["name"], row["pids"]) == (
            "process",
            "active",
            "train",
            [caller.pid],
        )
        folder = daemon.state_dir / "exec" / row["token"]
        assert (folder / "policy").exists() and (folder / "libcuda.so.1").exists()
        caller.communicate()
    daemon.until(lambda: not daemon.ps())
    assert not folder.exists()


def test_exec_for_another_process_is_refused(daemon: Daemon) -> None:
    """A portion is for the one who asks: its end is what gives it back."""
    with Sleeper() as other, pytest.raises(RefusedError, match="GP304"):
        daemon.ask("exec", request={"GPU_MEMORY_LIMIT": "1G"}, argv0="x", mounts=False, fds=(other.pidfd,))


def test_descriptors_do_not_leak(daemon: Daemon) -> None:
    """After many grants, refusals and superfluous descriptors the daemon holds as many files as before."""

    def life(number: int) -> None:
        granted = daemon.create("GPU_MEMORY_LIMIT=1G", id=f"c{number}")
        with Sleeper(("true",)) as container:
            extra = os.pidfd_open(os.getpid())
            with pytest.raises(RefusedError):
                daemon.ask(
                    "confirm", token=granted.token, pid=1, fds=(container.pidfd, extra, extra, extra, extra)
                )
            os.close(extra)
        daemon.ask("deleted", root="/run/test", id=f"c{number}")
        with Sleeper() as container, contextlib.suppress(RefusedError):
            daemon.confirm(granted.token, container)
        daemon.until(lambda: not daemon.ps())

    life(0)
    before = daemon.descriptors()  # at most: the last connection may not be closed yet
    for number in range(10):
        life(number)
    daemon.until(lambda: daemon.descriptors() <= before)
