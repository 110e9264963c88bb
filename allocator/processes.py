"""Processes of this machine, as /proc tells: who they are, whether they live, in which cgroups they are.

Pids are of the daemon's own pid namespace. Knows nothing of grants.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import re
import select
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from gpuportion.errors import GpuportionError

TICKS: Final = os.sysconf("SC_CLK_TCK")
"""Clock ticks in a second."""

DEVICE: Final = re.compile(rb"^\S+ \S+ \S+ ([0-9a-f]+):([0-9a-f]+) ", re.MULTILINE)
"""Of a line of /proc/PID/maps, by its field alone: a file may be called as a line looks, but for its end."""

MOST_MAPS: Final = 4 << 20

MOST_FDS: Final = 4096
"""Descriptors of a process that are looked at. It may open a million, and each costs the daemon's thread 17 us."""


@dataclass(frozen=True, slots=True)
class Process:
    """A process that can be told from a later one with its pid. `start` in clock ticks since boot."""

    pid: int
    start: int


@dataclass(frozen=True, slots=True)
class Living:
    """A process that lived when it was met. `pidfd`, close-on-exec, stands for exactly this one; whoever has it closes
    it."""

    process: Process
    pidfd: int

    def again(self) -> Living:
        """The same, with a descriptor of its own."""
        return Living(self.process, os.dup(self.pidfd))


def read_proc(path: str) -> bytes:
    """A small file of /proc. Plain system calls: a grant's life reads a dozen, and file objects take longer."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 16384)
    finally:
        os.close(fd)


def boot_id() -> str:
    return read_proc("/proc/sys/kernel/random/boot_id").decode().strip()


def start_of(pid: int) -> int | None:
    """When process `pid` began; None: there is none (nor a 0 or -1 in /proc). A zombie still counts."""
    try:
        stat = read_proc(f"/proc/{pid}/stat")
    except OSError:
        return None
    return int(stat.rpartition(b")")[2].split()[19])


def began_before(start: int, moment: float) -> bool:
    """Was a process of this `start` there at `moment`, in seconds of CLOCK_BOOTTIME? In doubt, it was not."""
    return (start + 1) / TICKS <= moment


def pid_namespace(pid: int) -> int:
    """The inode of the pid namespace that process `pid` lives in; 0: it is gone."""
    try:
        return os.stat(f"/proc/{pid}/ns/pid").st_ino
    except OSError:
        return 0


def name_of(pid: int) -> str:
    """What the process calls itself, at most 15 characters, each printable; "" if it is gone."""
    try:
        text = read_proc(f"/proc/{pid}/comm").decode(errors="replace").rstrip("\n")
    except OSError:
        return ""
    return "".join(c if c.isprintable() else "?" for c in text)


def all_pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def parent_of(pid: int) -> int:
    """The process that made `pid`, or took it over; 0: there is none."""
    try:
        stat = read_proc(f"/proc/{pid}/stat")
    except OSError:
        return 0
    return int(stat.rpartition(b")")[2].split()[1])


def uid_of(pid: int) -> int:
    """Whose process it is; root's where it is gone."""
    try:
        return os.stat(f"/proc/{pid}").st_uid
    except OSError:
        return 0


def innermost_pid(pid: int) -> int:
    """What process `pid` calls itself, in the pid namespace that it lives in; 0: it is gone."""
    try:
        status = read_proc(f"/proc/{pid}/status")
    except OSError:
        return 0
    return int(status.partition(b"\nNSpid:")[2].partition(b"\n")[0].split()[-1])


def pid_of(pidfd: int) -> int:
    """The process that a pidfd stands for; -1 if it was reaped, 0 if it is in no namespace of ours.

    GpuportionError if the descriptor is none: it came from a peer and can be anything.
    """
    pid = _told_of(pidfd)
    if pid is None:
        raise GpuportionError("GP304", why="the descriptor that came with it is no pidfd")
    return pid


def _told_of(fd: int) -> int | None:
    _, found, rest = read_proc(f"/proc/self/fdinfo/{fd}").partition(b"\nPid:")
    return int(rest.split(None, 1)[0]) if found else None


def is_pidfd_of(fd: int, living: Living) -> bool:
    """Is this descriptor, which came from a peer and can be anything, a pidfd of this process too?

    Since Linux 6.9 each process has an inode of its own, which all its pidfds show; before, all have the same one, and
    /proc has to be asked."""
    if (inode := _inode(living.pidfd)) != _own_inode():
        return _inode(fd) == inode
    return _told_of(fd) == living.process.pid


def _inode(fd: int) -> tuple[int, int]:
    status = os.fstat(fd)
    return status.st_dev, status.st_ino


@functools.cache
def _own_inode() -> tuple[int, int]:
    """Of this process: as any other's where they have none of their own."""
    pidfd = os.pidfd_open(os.getpid())
    try:
        return _inode(pidfd)
    finally:
        os.close(pidfd)


def has_exited(pidfd: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def identify(pidfd: int) -> Process | None:
    """The living process behind `pidfd`; None: it has ended. Sure even where pids are reused at once."""
    pid = pid_of(pidfd)
    start = start_of(pid)
    if start is None or has_exited(pidfd):
        return None
    return Process(pid, start)


def meet(pid: int) -> Living | None:
    """Who has this pid now; None: nobody who lives. The descriptor first: while it has not become readable, all that is
    read of the pid is of this process."""
    try:
        pidfd = os.pidfd_open(pid)
    except (OSError, OverflowError):  # a peer can say any number
        return None
    start = start_of(pid)
    if start is not None and not has_exited(pidfd):
        return Living(Process(pid, start), pidfd)
    os.close(pidfd)
    return None


@contextlib.contextmanager
def meeting(pid: int) -> Iterator[Living | None]:
    """Whom `meet` finds; the descriptor is closed afterwards."""
    living = meet(pid)
    try:
        yield living
    finally:
        if living is not None:
            os.close(living.pidfd)


def open_pidfd(process: Process) -> int | None:
    """A pidfd (close-on-exec) of exactly this process; None: it is gone."""
    living = meet(process.pid)
    if living is None:
        return None
    if living.process == process:
        return living.pidfd
    os.close(living.pidfd)
    return None


def of_pid(pid: int) -> Process | None:
    """Who has this pid now, a zombie too; None: nobody. For whoever has no use for the descriptor of `meet`."""
    start = start_of(pid)
    return None if start is None else Process(pid, start)


def mapped_devices(pid: int) -> frozenset[int]:
    """The devices (st_dev) whose files the process maps; a grant's ledger is alone on its own. Of a process with more
    than MOST_MAPS bytes of mappings those at the highest addresses are left out; empty: it is gone."""
    try:
        with open(f"/proc/{pid}/maps", "rb") as file:
            text = file.read(MOST_MAPS)
    except OSError:
        return frozenset()
    found = set(DEVICE.findall(text))
    return frozenset(os.makedev(int(major, 16), int(minor, 16)) for major, minor in found)


def locked_bytes(pid: int, device: int, inode: int) -> set[int]:
    """Which single bytes of a file the open descriptions of a process have locked (the kernel's account, not the
    process's). Empty if it is gone. Of a process with more than MOST_FDS descriptors the later ones are left out."""
    wanted = f"{os.major(device):02x}:{os.minor(device):02x}:{inode}"
    try:
        with os.scandir(f"/proc/{pid}/fdinfo") as entries:
            fds = [entry.path for entry in itertools.islice(entries, MOST_FDS)]
    except OSError:
        return set()
    return {at for fd in fds for at in _locked_by(fd, wanted)}


def _locked_by(fdinfo: str, wanted: str) -> Iterator[int]:
    """The single bytes that one open description has locked; none if it was closed meanwhile."""
    try:
        lines = read_proc(fdinfo).decode().splitlines()
    except OSError:
        return
    for words in map(str.split, lines):
        if words[:1] == ["lock:"] and words[2] == "OFDLCK" and wanted in words and words[-1] == words[-2]:
            yield int(words[-1])
