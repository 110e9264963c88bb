"""Processes told apart by pid and start, on real ones."""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gpuportion.allocator import processes
from gpuportion.allocator.processes import Process
from gpuportion.errors import GpuportionError


@contextmanager
def running(*command: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is ended in any case: a test that fails must not wait for it."""
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        try:
            yield child
        finally:
            child.kill()


def test_a_process_is_its_pid_and_its_start() -> None:
    """And a pidfd leads to both, until it ends."""
    with running("sleep", "3600") as child:
        pidfd = os.pidfd_open(child.pid)
        found = processes.identify(pidfd)
        assert found == Process(child.pid, processes.start_of(child.pid) or -1)
        assert found is not None and found.pid == child.pid == processes.pid_of(pidfd)
        assert not processes.has_exited(pidfd)
        child.kill()
        child.wait()
        assert processes.has_exited(pidfd)
        assert processes.identify(pidfd) is None
        assert processes.pid_of(pidfd) == -1
        assert processes.start_of(child.pid) is None
        os.close(pidfd)


def test_a_zombie_has_ended() -> None:
    """It holds no memory any more, though /proc still shows it."""
    with running("true") as child:
        pidfd = os.pidfd_open(child.pid)
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert processes.start_of(child.pid) is not None
        assert processes.identify(pidfd) is None
        os.close(pidfd)


def test_a_pid_that_is_somebody_elses_now_is_not_opened() -> None:
    """After a restart of the daemon the start decides."""
    me = processes.start_of(os.getpid())
    assert me is not None
    assert processes.open_pidfd(Process(os.getpid(), me + 1)) is None
    pidfd = processes.open_pidfd(Process(os.getpid(), me))
    assert pidfd is not None and not os.get_inheritable(pidfd)
    os.close(pidfd)


def test_a_name_with_a_bracket_in_it_does_not_confuse_the_start() -> None:
    """/proc/PID/stat has the name in brackets, and a process chooses its name."""
    code = (
        "import ctypes, time; ctypes.CDLL(None).prctl(15, b') S 1 1 1'); print(flush=True); time.sleep(3600)"
    )
    with running("python3", "-c", code) as child:
        before = processes.start_of(child.pid)
        assert child.stdout is not None
        child.stdout.readline()
        assert processes.start_of(child.pid) == before is not None
        assert processes.parent_of(child.pid) == os.getpid()


@pytest.mark.parametrize("have_inodes", [True, False])
def test_a_descriptor_is_known_as_a_pidfd_of_one_process_alone(
    have_inodes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its inode, or where pidfds have none of their own, by /proc. Nothing else is one: neither of another process,
    nor of one that was reaped, nor what lies among the kernel's nameless files as a pidfd does."""
    with running("sleep", "3600") as child, running("sleep", "3600") as other:
        living, gone = processes.meet(child.pid), os.pidfd_open(other.pid)
        assert living is not None
        if not have_inodes:
            monkeypatch.setattr(processes, "_inode", lambda fd: (0, 0))
            monkeypatch.setattr(processes, "_own_inode", lambda: (0, 0))
        same, another = os.pidfd_open(child.pid), os.pidfd_open(os.getpid())
        event, file = os.eventfd(0), os.open("/dev/null", os.O_RDONLY)
        other.kill()
        other.wait()
        told = [processes.is_pidfd_of(fd, living) for fd in (same, living.pidfd, another, gone, event, file)]
        assert told == [True, True, False, False, False, False]
        for fd in (living.pidfd, same, another, gone, event, file):
            os.close(fd)


def test_the_daemon_itself_is_known_too() -> None:
    """Its inode tells nothing here, so /proc does."""
    living = processes.meet(os.getpid())
    assert living is not None
    same, another = os.pidfd_open(os.getpid()), os.pidfd_open(os.getppid())
    assert processes.is_pidfd_of(same, living) and not processes.is_pidfd_of(another, living)
    for fd in (living.pidfd, same, another):
        os.close(fd)


def test_what_is_no_pidfd_is_refused() -> None:
    """A peer can send any descriptor."""
    with pytest.raises(GpuportionError, match="no pidfd"):
        processes.pid_of(0)


def test_a_peer_that_cannot_be_seen_is_nobody() -> None:
    """Pid 0: it is in no pid namespace of ours."""
    assert processes.of_pid(0) is None
    assert [processes.meet(pid) for pid in (0, -1, 1 << 22, 1 << 31, 1 << 64)] == [None] * 5
    start = processes.start_of(os.getpid())
    assert start is not None
    assert processes.of_pid(os.getpid()) == Process(os.getpid(), start)


def test_who_is_met_is_known_with_a_descriptor_until_it_ends() -> None:
    """The descriptor stands for exactly this process; a zombie is nobody to meet."""
    with running("sleep", "3600") as child:
        living = processes.meet(child.pid)
        assert living is not None and living.process == processes.of_pid(child.pid)
        assert processes.pid_of(living.pidfd) == child.pid and not os.get_inheritable(living.pidfd)
        before = os.listdir("/proc/self/fd")
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert processes.has_exited(living.pidfd) and processes.meet(child.pid) is None
        child.wait()
        assert processes.meet(child.pid) is None
        assert os.listdir("/proc/self/fd") == before
        os.close(living.pidfd)


def test_a_mapped_file_is_found_by_its_device() -> None:
    """How a process of `gpuportion exec` is known: by the ledger that it maps."""
    with tempfile.TemporaryFile(dir="/dev/shm") as file:
        file.write(b"x" * 4096)
        file.flush()
        device = os.fstat(file.fileno()).st_dev
        with mmap.mmap(file.fileno(), 4096):
            assert device in processes.mapped_devices(os.getpid())
    assert os.makedev(4000, 77) not in processes.mapped_devices(os.getpid())
    assert processes.mapped_devices(0) == frozenset()


def test_a_mapped_file_may_have_any_name(tmp_path: Path) -> None:
    """A process maps what it likes: a name that is no text hides nothing."""
    strange = os.fsencode(tmp_path) + b"/\xff\xfe"
    with open(strange, "wb+") as file:
        file.truncate(4096)
        with mmap.mmap(file.fileno(), 4096):
            assert os.makedev(4000, 77) not in processes.mapped_devices(os.getpid())


@pytest.mark.parametrize("space", [" ", "\r", "\v", "\x85"])
def test_a_name_says_nothing_of_the_device(tmp_path: Path, space: str) -> None:
    """Else a process could be counted as another's by what it calls a file."""
    forged = tmp_path / space.join(("x", "7f0-7f1", "r--s", "00000000", "fa0:4d", "1", "y"))
    with forged.open("wb+") as file:
        file.truncate(4096)
        with mmap.mmap(file.fileno(), 4096):
            assert os.makedev(4000, 77) not in processes.mapped_devices(os.getpid())
            assert os.fstat(file.fileno()).st_dev in processes.mapped_devices(os.getpid())


def test_the_boot_is_the_kernels_word_for_it() -> None:
    """What makes a row of an earlier boot mean nothing."""
    with open("/proc/sys/kernel/random/boot_id") as file:
        assert f"{processes.boot_id()}\n" == file.read()


def test_a_process_calls_itself_what_its_own_namespace_does() -> None:
    """The last of its pids; ours where it lives with us, 0 where it is gone."""
    with running("sleep", "3600") as child:
        assert processes.innermost_pid(child.pid) == child.pid
        child.kill()
        child.wait()
        assert processes.innermost_pid(child.pid) == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes a pid namespace")
def test_the_first_process_of_a_namespace_is_its_number_one() -> None:
    """Whatever number it has outside."""
    command = ["unshare", "--pid", "--fork", "--kill-child", "sh", "-c", "echo; exec sleep 3600"]
    with running(*command) as outside:
        assert outside.stdout is not None
        outside.stdout.readline()
        (inside,) = Path(f"/proc/{outside.pid}/task/{outside.pid}/children").read_text().split()
        assert processes.innermost_pid(int(inside)) == 1


def test_locked_bytes_are_those_of_its_open_descriptions(tmp_path: Path) -> None:
    """Single bytes of that file, by whichever descriptor; a lock that belongs to a process is none of them."""
    path = tmp_path / "file"
    path.touch()
    gap = os.open(path, os.O_RDONLY)
    with path.open("r+b") as one, path.open("r+b") as two, path.open("r+b") as old:
        os.close(gap)  # who looks opens this number, before the others, and has closed it when he reads
        at = os.stat(path)
        assert processes.locked_bytes(os.getpid(), at.st_dev, at.st_ino) == set()
        for file, first, length in ((one, 3, 1), (one, 259, 1), (two, 7, 1), (two, 20, 4)):
            lock = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, first, length, 0)
            fcntl.fcntl(file, fcntl.F_OFD_SETLK, lock)
        fcntl.lockf(old, fcntl.LOCK_EX, 1, 100)
        assert processes.locked_bytes(os.getpid(), at.st_dev, at.st_ino) == {3, 7, 259}
        assert processes.locked_bytes(os.getpid(), at.st_dev, at.st_ino + 1) == set()
    assert processes.locked_bytes(0, at.st_dev, at.st_ino) == set()


@pytest.mark.parametrize(
    ("name", "shown"), [(b"a\xff\x07\nbX", "a\N{REPLACEMENT CHARACTER}??bX"), (b"b ", "b ")]
)
def test_a_name_is_one_printable_line(name: bytes, shown: str) -> None:
    """A process calls itself what it likes, and messages say it."""
    code = f"import ctypes, time; ctypes.CDLL(None).prctl(15, {name!r}); print(flush=True); time.sleep(3600)"
    with running("python3", "-c", code) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert processes.name_of(child.pid) == shown


def test_a_process_has_a_user_a_namespace_and_a_place_among_all() -> None:
    """And none of these where it is gone."""
    me = os.getpid()
    assert me in processes.all_pids() and processes.parent_of(me) == os.getppid()
    assert processes.uid_of(me) == os.geteuid()
    assert processes.pid_namespace(me) == os.stat("/proc/self/ns/pid").st_ino
    assert (processes.parent_of(0), processes.uid_of(0), processes.pid_namespace(0)) == (0, 0, 0)
    assert processes.name_of(0) == ""


@pytest.mark.parametrize("start", [0, 1, 123_456])
def test_a_process_began_before_a_moment_by_a_whole_tick(start: int) -> None:
    """The kernel cuts the rest of its start off."""
    assert processes.began_before(start, (start + 1) / processes.TICKS)
    assert not processes.began_before(start, (start + 0.5) / processes.TICKS)
