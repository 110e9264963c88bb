"""Whether anybody is left in a container's cgroup."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.daemon import Cgroup, Sleeper

from gpuportion.allocator import cgroups


def folder(path: Path, procs: str | None = "", events: str | None = None) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    if procs is not None:
        (path / "cgroup.procs").write_text(procs)
    if events is not None:
        (path / "cgroup.events").write_text(events)
    return path


def test_v1_asks_the_folder_and_all_below(tmp_path: Path) -> None:
    """A container with its own systemd has its processes further down."""
    root = folder(tmp_path / "c1")
    folder(root / "system.slice")
    folder(root / "system.slice" / "ssh.service")
    assert not cgroups.is_populated(str(root))
    folder(root / "system.slice" / "ssh.service", procs="123\n")
    assert cgroups.is_populated(str(root))


def test_v2_asks_the_kernels_summary(tmp_path: Path) -> None:
    """`populated` counts all below; cgroup.procs of a folder with children is empty anyway."""
    assert cgroups.is_populated(str(folder(tmp_path / "a", events="populated 1\nfrozen 0\n")))
    assert not cgroups.is_populated(str(folder(tmp_path / "b", events="populated 0\nfrozen 0\n")))


def test_a_cgroup_that_is_gone_is_empty(tmp_path: Path) -> None:
    """Runtimes remove it with the container."""
    assert not cgroups.is_populated(str(tmp_path / "gone"))


def test_what_cannot_be_read_counts_as_populated(tmp_path: Path) -> None:
    """A grant ends too late rather than too early."""
    (tmp_path / "c1" / "cgroup.events").mkdir(parents=True)
    assert cgroups.is_populated(str(tmp_path / "c1"))


def test_links_in_a_cgroup_are_not_followed(tmp_path: Path) -> None:
    """There are none in a real one; a loop must not catch the daemon."""
    root = folder(tmp_path / "c1")
    (root / "loop").symlink_to(root)
    (root / "out").symlink_to(folder(tmp_path / "other", procs="123\n"))
    assert not cgroups.is_populated(str(root))


def test_there_is_an_end_to_how_deep_it_looks(tmp_path: Path) -> None:
    """A container may make folders below each other: 64 are looked at, whatever is below them is not."""
    deep = folder(tmp_path / "c1")
    for _ in range(cgroups.DEPTH):
        deep = folder(deep / "d")
    folder(deep / "d", procs="123\n")
    assert not cgroups.is_populated(str(tmp_path / "c1"))
    folder(deep, procs="123\n")
    assert cgroups.is_populated(str(tmp_path / "c1"))


def test_the_kernels_list_is_read_whatever_the_names_are() -> None:
    """Hierarchies that were mounted together share a line; a path can hold colons."""
    text = "4:cpu,cpuacct:/a:b,c\n1:name=systemd:/x:y:z\n0::/v2\n"
    assert cgroups.parse(text) == {"cpu": "/a:b,c", "cpuacct": "/a:b,c", "name=systemd": "/x:y:z", "": "/v2"}
    assert cgroups.parse("") == {}


@pytest.mark.parametrize("cut", ["3", "3:cpu", "3:cpu:/a"])
def test_a_line_that_was_cut_off_says_nothing(cut: str) -> None:
    """Whoever makes cgroups makes paths of any length, and no more than 16 KiB are read."""
    assert cgroups.parse(f"4:pids:/a\n{cut}") == {"pids": "/a"}


@pytest.mark.parametrize("end", ["\r", "\v", "\f", "\x1c", "\x85", "\u2028"])
def test_nothing_but_a_newline_ends_a_line(end: str) -> None:
    """Who may make cgroups could else say to be in another's, or break the list."""
    named = f"/mine/x{end}0::/docker/other"
    assert cgroups.parse(f"0::{named}\n") == {"": named}
    assert cgroups.parse(f"0::/a{end}b\n") == {"": f"/a{end}b"}


@pytest.fixture
def cgroup() -> Iterator[Cgroup]:
    if os.geteuid() != 0:
        pytest.skip("needs root: makes a cgroup")
    made = Cgroup(f"gpuportion-unit-{os.getpid()}")
    yield made
    made.remove()


def test_a_real_container_cgroup_is_found_and_ends(cgroup: Cgroup) -> None:
    """By its process, from /proc; processes that were put below it count until the last is gone."""
    with Sleeper() as other:
        with Sleeper() as first:
            cgroup.add(first.pid)
            cgroup.add(other.pid, below="nested")
            folders = cgroups.own_folders(first.pid, beside=os.getpid())
            assert folders == tuple(map(str, cgroup.folders))
            assert cgroups.belongs(cgroups.membership(other.pid), folders)
            assert not cgroups.belongs(cgroups.membership(os.getpid()), folders)
        assert any(cgroups.is_populated(each) for each in folders)
    assert not any(cgroups.is_populated(each) for each in folders)


def test_a_cgroup_shared_with_its_maker_tells_nothing(cgroup: Cgroup) -> None:
    """`podman --cgroups=disabled`: it would never be empty."""
    with Sleeper() as first, Sleeper() as maker:
        cgroup.add(first.pid)
        cgroup.add(maker.pid)
        assert cgroups.own_folders(first.pid, beside=maker.pid) == ()


def test_a_process_that_is_gone_has_no_cgroup() -> None:
    """So nothing is recorded for it."""
    child = subprocess.Popen(["true"])
    child.wait()
    assert cgroups.own_folders(child.pid, beside=0) == ()


def test_a_name_that_begins_alike_is_another_cgroup() -> None:
    """c1 is not the beginning of c10."""
    (name, mount), *_ = cgroups.mounts().items()
    assert cgroups.belongs({name: "/docker/c1/below"}, (f"{mount}/docker/c1",))
    assert not cgroups.belongs({name: "/docker/c10"}, (f"{mount}/docker/c1",))
