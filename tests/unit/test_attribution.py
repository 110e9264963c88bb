"""Which process belongs to which grant, and what is left for others."""

from __future__ import annotations

import dataclasses
import mmap
import os
import subprocess
import tempfile
import time
from contextlib import ExitStack
from decimal import Decimal

import pytest
from tests.support.daemon import Sleeper

from gpuportion.allocator.attribution import PATIENCE, Attribution, Held
from gpuportion.allocator.inventory import Reading, Sample
from gpuportion.allocator.owners import MAPS, UNDECIDED, Claim
from gpuportion.allocator.processes import Process, start_of
from gpuportion.sizes import MIB

UUID = "GPU-00000000-0000-0000-0000-000000000000"
GIB = 1 << 30


def sample(processes: dict[int, int], used: int | None = None) -> Sample:
    used = sum(processes.values()) if used is None else used
    reading = Reading(0, UUID, "A100", 0, 80 * GIB, reserved=600 * MIB, used=used, processes=processes)
    return Sample((reading,), "550.54.15")


def alive(pid: int) -> Process:
    """The process that has this pid now."""
    start = start_of(pid)
    assert start is not None
    return Process(pid, start)


def test_memory_without_a_grant_is_not_granted() -> None:
    """A stranger's comes off, a grant's own does not: it is in the grant already."""
    attribution = Attribution(margin=0)
    with Sleeper() as stranger:
        (gpu,) = attribution.update(
            sample({os.getpid(): 10 * GIB, stranger.pid: 3 * GIB}),
            [Claim("mine", holder=alive(os.getpid()), limits={UUID: 10 * GIB})],
        )
    assert gpu.unmanaged == 3 * GIB
    assert gpu.grantable == 80 * GIB - 600 * MIB - 3 * GIB
    assert {(one.pid, one.token) for one in attribution.held[UUID]} == {
        (os.getpid(), "mine"),
        (stranger.pid, ""),
    }


@pytest.mark.parametrize(
    ("limits", "beyond"), [({UUID: 12 * GIB}, 0), ({UUID: 7 * GIB}, 3 * GIB), ({}, 10 * GIB)]
)
def test_memory_beyond_a_grant_is_not_granted(limits: dict[str, int], beyond: int) -> None:
    """Whatever got past the library is there: to promise it to somebody else would only make that one fail."""
    attribution = Attribution(margin=0)
    (gpu,) = attribution.update(
        sample({os.getpid(): 10 * GIB}), [Claim("mine", holder=alive(os.getpid()), limits=limits)]
    )
    assert gpu.unmanaged == beyond


def test_a_process_that_has_just_ended_is_nobodys() -> None:
    """NVML's list is older than our look: its memory is free, and was never a stranger's."""
    gone = subprocess.Popen(["true"])
    gone.wait()
    (gpu,) = Attribution(margin=0).update(sample({gone.pid: 10 * GIB}), [])
    assert gpu.unmanaged == 0


def test_a_grants_process_that_ended_stays_the_grants() -> None:
    """Forked children may keep its memory alive, and NVML its pid."""
    attribution = Attribution(margin=0)
    with Sleeper() as mine:
        claims = [Claim("mine", holder=alive(mine.pid))]
        attribution.update(sample({mine.pid: GIB}), claims)
        pid = mine.pid
    attribution.update(sample({pid: GIB}), [Claim("mine")])
    assert [one.token for one in attribution.held[UUID]] == ["mine"]
    attribution.update(sample({pid: GIB}), [])
    assert [one.token for one in attribution.held[UUID]] == [None]


def test_memory_that_nobody_is_listed_for_counts_when_it_stays() -> None:
    """One sample mixes moments; several do not."""
    attribution = Attribution(margin=0)
    seen = [attribution.update(sample({}, used=GIB), [])[0].unmanaged for _ in range(PATIENCE)]
    assert seen == [0] * (PATIENCE - 1) + [GIB]
    assert attribution.update(sample({}, used=GIB), [])[0].unmanaged == GIB
    assert attribution.update(sample({}, used=0), [])[0].unmanaged == 0


def test_what_is_listed_is_not_taken_off_twice() -> None:
    """Used memory that NVML lists a grant's process for is no unlisted memory, however long it stays."""
    attribution = Attribution(margin=0)
    claims = [Claim("mine", holder=alive(os.getpid()), limits={UUID: GIB})]
    for _ in range(PATIENCE + 1):
        (gpu,) = attribution.update(sample({os.getpid(): GIB}), claims)
        assert gpu.unmanaged == 0


def test_each_gpu_has_its_own_patience() -> None:
    """What nobody is listed for on one GPU says nothing of another; everything else is as it was read."""
    read = Reading(
        0, UUID, "A100", 0, 80 * GIB, reserved=600 * MIB, used=GIB, processes={}, links={"GPU-1": 3}
    )
    other = Reading(1, UUID[:-1] + "1", "H100", 5, 90 * GIB, reserved=0, used=0, processes={}, trouble="hot")
    attribution = Attribution(margin=7, overcommit=Decimal("1.5"))
    for _ in range(PATIENCE):
        first, second = attribution.update(Sample((read, other), "550.54.15"), [])
    assert (first.unmanaged, second.unmanaged) == (GIB, 0)
    for gpu, one in ((first, read), (second, other)):
        assert (gpu.index, gpu.uuid, gpu.model, gpu.minor) == (one.index, one.uuid, one.model, one.minor)
        assert (gpu.total, gpu.reserved, gpu.used) == (one.total, one.reserved, one.used)
        assert (gpu.margin, gpu.trouble, gpu.overcommit) == (7, one.trouble, Decimal("1.5"))
        assert gpu.links == one.links


def test_the_processes_of_a_grant_are_counted_together() -> None:
    """Two that are within it each can be beyond it in sum."""
    with Sleeper() as other:
        claims = [
            Claim("mine", holder=alive(os.getpid()), limits={UUID: 10 * GIB}),
            Claim("mine", holder=alive(other.pid), limits={UUID: 10 * GIB}),
        ]
        (gpu,) = Attribution(margin=0).update(sample({os.getpid(): 6 * GIB, other.pid: 7 * GIB}), claims)
    assert gpu.unmanaged == 3 * GIB


def test_a_process_stays_its_grants_while_both_live() -> None:
    """It may have left its cgroup; and it was asked for once."""
    attribution = Attribution(margin=0)
    attribution.update(sample({os.getpid(): GIB}), [Claim("mine", holder=alive(os.getpid()))])
    attribution.update(sample({os.getpid(): GIB}), [Claim("mine")])
    assert [one.token for one in attribution.held[UUID]] == ["mine"]


def test_what_a_process_holds_is_kept_with_its_start() -> None:
    """By which a later process with its pid is another; one that has ended has none."""
    gone = subprocess.Popen(["true"])
    gone.wait()
    attribution = Attribution(margin=0)
    attribution.update(
        sample({os.getpid(): GIB, gone.pid: 2 * GIB}), [Claim("mine", holder=alive(os.getpid()))]
    )
    mine, ended = attribution.held[UUID]
    assert mine == Held(os.getpid(), GIB, "mine", alive(os.getpid()).start)
    assert (ended.pid, ended.size, ended.start) == (gone.pid, 2 * GIB, 0) and ended.token != "mine"


def test_a_process_is_known_by_the_ledger_that_it_maps() -> None:
    """As /proc tells of a real one."""
    with tempfile.TemporaryFile(dir="/dev/shm") as file:
        file.truncate(4096)
        with mmap.mmap(file.fileno(), 4096):
            claims = [Claim("mine", ledger=os.fstat(file.fileno()).st_dev)]
            attribution = Attribution(margin=0)
            attribution.update(sample({os.getpid(): GIB}), claims)
    assert [one.token for one in attribution.held[UUID]] == ["mine"]


def test_before_the_first_sample_nobody_holds_anything() -> None:
    """Whoever asks then gets an answer."""
    assert Attribution().held == {}


def test_a_process_younger_than_the_reading_only_has_a_listed_pid() -> None:
    """The one that NVML saw has ended: its memory is nobody's, and the later one no stranger."""
    attribution = Attribution(margin=0)
    with Sleeper() as later:
        taken = time.clock_gettime(time.CLOCK_BOOTTIME) - 60
        read = dataclasses.replace(sample({later.pid: GIB, os.getppid(): GIB}), taken=taken)
        (gpu,) = attribution.update(read, [])
        assert attribution.held[UUID][0].token is None
        (gpu,) = attribution.update(dataclasses.replace(read, taken=float("inf")), [])
        assert gpu.unmanaged == 2 * GIB


def test_unlisted_memory_is_told_apart_from_strangers() -> None:
    """It is part of what is held without a grant, and shown by itself."""
    attribution = Attribution(margin=0)
    with Sleeper() as stranger:
        for _ in range(PATIENCE):
            (gpu,) = attribution.update(sample({stranger.pid: GIB}, used=3 * GIB), [])
    assert (gpu.unmanaged, gpu.unaccounted) == (3 * GIB, 2 * GIB)


def test_who_waits_to_be_looked_at_counts_as_a_stranger() -> None:
    """What it holds can't be granted meanwhile; and that somebody waits is told."""
    attribution = Attribution(margin=0)
    claims = [Claim("of an exec", ledger=4)]
    with ExitStack() as stack:
        pids = [stack.enter_context(Sleeper()).pid for _ in range(MAPS + 1)]
        (gpu,) = attribution.update(sample(dict.fromkeys(pids, GIB)), claims)
        assert gpu.unmanaged == (MAPS + 1) * GIB and attribution.is_undecided
        assert [one.token for one in attribution.held[UUID]].count(UNDECIDED) == 1
        attribution.update(sample(dict.fromkeys(pids, GIB)), claims)
        assert not attribution.is_undecided


def test_that_one_of_them_ended_is_told_once() -> None:
    """Then the same list may mean somebody else."""
    attribution = Attribution(margin=0)
    with Sleeper() as process:
        attribution.update(sample({process.pid: GIB}), [])
        assert not attribution.has_lost()
    assert attribution.has_lost() and not attribution.has_lost()
