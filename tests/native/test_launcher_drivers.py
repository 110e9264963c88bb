"""What of an NVIDIA driver the launcher finds in an image: where it looks, what counts, what it never follows."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.support.launcher import REQUEST, Launcher, config, edit_it, refused_with
from tests.support.scripted_daemon import ScriptedDaemon

FILE = "libcuda.so.570.86.10"


def put(rootfs: Path, *paths: str) -> None:
    for path in paths:
        at = rootfs / path.lstrip("/")
        at.parent.mkdir(parents=True, exist_ok=True)
        at.touch()


def link(rootfs: Path, path: str, target: str) -> None:
    at = rootfs / path.lstrip("/")
    at.parent.mkdir(parents=True, exist_ok=True)
    at.symlink_to(target)


def found(launcher: Launcher, *env: str) -> dict[str, str]:
    """Path in the image -> name, as the daemon is told."""
    launcher.write(config(REQUEST, *env))
    with ScriptedDaemon(launcher.run_dir, edit_it) as daemon:
        assert launcher.create().returncode == 0
    told: list[dict[str, Any]] = daemon.seen[0].head["image_drivers"]
    assert len({each["path"] for each in told}) == len(told)
    return {each["path"]: each["name"] for each in told}


@pytest.mark.parametrize(
    "folder",
    [
        "/usr/local/cuda-12.8/compat",
        "/usr/local/cuda/compat/lib.real",
        "/usr/local/nvidia/lib64",
        "/usr/lib/x86_64-linux-gnu/nvidia/current",
        "/usr/lib64",
        "/opt/conda/cuda-compat",
    ],
)
def test_known_folders_are_looked_at(launcher: Launcher, folder: str) -> None:
    """Where NVIDIA's packages and images put a driver."""
    put(launcher.rootfs, f"{folder}/{FILE}")
    assert found(launcher) == {f"{folder}/{FILE}": FILE}


def test_folders_that_the_loader_is_told_of_are_looked_at(launcher: Launcher) -> None:
    """By LD_LIBRARY_PATH and ld.so.conf; relative ones, comments and patterns are no folders."""
    put(launcher.rootfs, *(f"/opt/{name}/libcuda.so.1" for name in "abcde"), "/rel/libcuda.so.1")
    (launcher.rootfs / "etc/ld.so.conf").write_text("include /etc/ld.so.conf.d/*.conf\n/opt/a\n")
    put(launcher.rootfs, "/etc/ld.so.conf.d/x.conf", "/etc/ld.so.conf.d/x.txt")
    (launcher.rootfs / "etc/ld.so.conf.d/x.conf").write_text("# a comment\n/opt/b")
    (launcher.rootfs / "etc/ld.so.conf.d/x.txt").write_text("/opt/e\n")
    told = found(launcher, "LD_LIBRARY_PATH=:rel:/opt/c::/opt/d/:/nowhere")
    assert sorted(told) == [f"/opt/{name}/libcuda.so.1" for name in "abcd"]


def test_a_file_is_told_once_by_its_own_path(launcher: Launcher) -> None:
    """Links lead to it, absolute ones too, within the image."""
    put(launcher.rootfs, f"/usr/local/cuda-12.8/compat/{FILE}")
    link(launcher.rootfs, "/usr/local/cuda-12.8/compat/libcuda.so.1", FILE)
    link(launcher.rootfs, "/usr/local/cuda", "/etc/alternatives/cuda")
    link(launcher.rootfs, "/etc/alternatives/cuda", "/usr/local/cuda-12.8")
    assert list(found(launcher)) == [f"/usr/local/cuda-12.8/compat/{FILE}"]


def test_names_of_a_driver_count(launcher: Launcher) -> None:
    """Libraries of the driver, no others, and nothing that is no file."""
    folder = "/usr/local/cuda/compat"
    names = ("libcuda.so", "libcudadebugger.so.1", "libnvidia-ml.so.1", "libnvidia-nvvm.so.4")
    put(
        launcher.rootfs,
        *(f"{folder}/{name}" for name in (*names, "libcudart.so.12", "libcuda.a", "libnvidia-x")),
    )
    (launcher.rootfs / folder[1:] / "libcuda.so.9").mkdir()
    os.mkfifo(launcher.rootfs / folder[1:] / "libcuda.so.8")
    assert sorted(found(launcher).values()) == sorted(names)


@pytest.mark.parametrize(
    "target", ["/etc/passwd", "../../../../../../../../etc/passwd", "/proc/self/exe", "nowhere"]
)
def test_links_never_lead_to_the_host(launcher: Launcher, target: str) -> None:
    """Its /etc/passwd is not the image's."""
    link(launcher.rootfs, "/usr/local/cuda/compat/libcuda.so.1", target)
    assert found(launcher) == {}


def test_a_name_is_only_text(launcher: Launcher) -> None:
    """Whatever bytes it has, the request stays JSON."""
    put(launcher.rootfs, '/usr/local/cuda/compat/libcuda.so."},{', "/usr/local/cuda/compat/libcuda.so.\n1")
    (launcher.rootfs / "usr/local/cuda/compat" / os.fsdecode(b"libcuda.so.\xff")).touch()
    assert len(found(launcher)) == 3


def test_more_than_can_be_is_refused(launcher: Launcher) -> None:
    """256 files are covered; with one more the image is no image of ours to judge."""
    put(launcher.rootfs, *(f"/usr/lib64/libcuda.so.{number}" for number in range(256)))
    assert len(found(launcher)) == 256
    put(launcher.rootfs, "/usr/lib64/libcuda.so.256")
    assert "more than 256 files" in refusal(launcher)


def refusal(launcher: Launcher) -> str:
    launcher.write(config(REQUEST))
    (launcher.bundle.parent / "recorded.json").unlink(missing_ok=True)
    said = refused_with(launcher, launcher.create())
    assert "GP311" in said
    return said


def test_an_image_does_not_say_how_long_it_takes(launcher: Launcher) -> None:
    """The search is the host's work: there is an end to the places that an image can name, whether they're there
    or not."""
    places = (launcher.rootfs / "etc/ld.so.conf", launcher.rootfs / "etc/ld.so.conf.d/x.conf")
    put(launcher.rootfs, "/etc/ld.so.conf.d/x.conf")
    for place in places:
        place.write_text("/nowhere\n" * 1900)
    assert found(launcher) == {}
    for place in places:
        place.write_text("/nowhere\n" * 2100)
    assert "4096 places" in refusal(launcher)


def test_links_to_one_file_come_to_an_end(launcher: Launcher) -> None:
    """Each costs a walk through the image, though it is told once."""
    put(launcher.rootfs, f"/usr/local/cuda/compat/{FILE}")
    for number in range(4100):
        link(launcher.rootfs, f"/usr/local/cuda/compat/libcuda.so.{number}", FILE)
    assert "4096 places" in refusal(launcher)


def leads(launcher: Launcher, *destinations: str) -> dict[str, str]:
    """Destination -> where it leads in the image, as the daemon is told."""
    spec = config(REQUEST)
    spec["mounts"] = [{"destination": each, "type": "bind", "source": "/tmp"} for each in destinations]
    launcher.write(spec)
    with ScriptedDaemon(launcher.run_dir, edit_it) as daemon:
        assert launcher.create().returncode == 0
    return {each["name"]: each["path"] for each in daemon.seen[0].head["image_mounts"]}


def test_destinations_that_lead_elsewhere_are_told(launcher: Launcher) -> None:
    """By links of the image, absolute and relative, within it; others are what they are."""
    put(launcher.rootfs, f"/usr/local/cuda-12.8/compat/{FILE}", "/data/x")
    link(launcher.rootfs, "/usr/local/cuda", "/etc/alternatives/cuda")
    link(launcher.rootfs, "/etc/alternatives/cuda", "../.././usr/local/cuda-12.8")
    link(launcher.rootfs, "/data/up", "../../../../../usr//local/cuda/compat/")
    link(launcher.rootfs, "/data/round", "round")
    link(launcher.rootfs, "/data/nowhere", "/not/there")
    told = leads(
        launcher, "/usr/local/cuda", "/data", "/data/up", "/data/round", "/data/nowhere", "/new", "rel"
    )
    assert told == {"/usr/local/cuda": "/usr/local/cuda-12.8"}
    assert leads(launcher, "/data/up", "/data/x") == {"/data/up": "/usr/local/cuda-12.8/compat"}


@pytest.mark.parametrize("over", ["/dev", "/etc/alternatives", "/usr/local/cuda-12.8/compat"])
def test_what_leads_over_another_mount_is_not_told(launcher: Launcher, over: str) -> None:
    """The image doesn't tell what is there then: it could have its driver taken for hidden."""
    put(launcher.rootfs, f"/usr/local/cuda-12.8/compat/{FILE}")
    link(launcher.rootfs, "/etc/alternatives/cuda", "/usr/local/cuda-12.8/compat")
    link(launcher.rootfs, "/dev/cuda", "/etc/alternatives/cuda")
    link(launcher.rootfs, "/etc/hosts", "/dev/cuda")
    assert leads(launcher, "/etc/hosts") == {"/etc/hosts": "/usr/local/cuda-12.8/compat"}
    assert leads(launcher, over, "/etc/hosts") == {}
