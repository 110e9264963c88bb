"""What gpuportion-runtime reads from a bundle and from the image in it, which a stranger wrote."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.launcher import EDITED, REQUEST, Launcher, config, edit_it, refused_with
from tests.support.scripted_daemon import ScriptedDaemon


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def make_large(path: Path) -> None:
    with open(path, "wb") as file:
        file.truncate(17 << 20)


@pytest.mark.parametrize(
    "make,why", [(Path.mkdir, "regular"), (make_fifo, "regular"), (make_large, "larger than 16 MB")]
)
def test_a_config_that_cannot_be_read_is_refused(launcher: Launcher, make: Any, why: str) -> None:
    """It may hold a request; the runtime might read it all the same."""
    make(launcher.config)
    assert why in refused_with(launcher, launcher.create())


def test_a_missing_config_is_the_runtimes_to_tell(launcher: Launcher) -> None:
    """Its message is better, and nothing can start."""
    assert launcher.create().returncode == 0
    assert launcher.recorded() is not None


def test_an_unknown_option_and_no_config_is_refused(launcher: Launcher) -> None:
    """The bundle may be elsewhere than we think: no newer runtime's option is a way around the limit."""
    result = launcher.run("--log", str(launcher.log), "create", "--newer", "c1", "-x", cwd="/")
    assert "does not know" in refused_with(launcher, result)


@pytest.mark.parametrize(
    "words", [["create"], ["create", "--bundle"], ["create", "--help"], ["run", "-h", "c1"]]
)
def test_a_line_without_a_container_is_the_runtimes(launcher: Launcher, words: list[str]) -> None:
    """It prints its own help."""
    launcher.write(config(REQUEST))
    assert launcher.run(*words).returncode == 0
    assert launcher.recorded() is not None


def test_a_bundle_that_cannot_be_written_starts_nothing(launcher: Launcher) -> None:
    """The container would run without the edit. (An immutable folder: root can write to all others.)"""
    text = launcher.write(config(REQUEST))
    if subprocess.run(["chattr", "+i", launcher.bundle], capture_output=True, check=False).returncode != 0:
        pytest.skip("needs chattr and a filesystem that has immutable folders")
    try:
        with ScriptedDaemon(launcher.run_dir, edit_it):
            result = launcher.create()
    finally:
        subprocess.run(["chattr", "-i", launcher.bundle], check=True)
    assert "cannot be replaced" in refused_with(launcher, result)
    assert launcher.config.read_bytes() == text


def test_a_file_left_by_a_killed_launcher_is_in_nobodys_way(launcher: Launcher) -> None:
    """Process ids come again; the name is taken over, and a link there is not followed."""
    launcher.write(config(REQUEST))
    target = launcher.bundle.parent / "precious"
    target.write_text("precious")

    def leave_a_link() -> None:
        (launcher.bundle / f".gpuportion.{os.getpid()}").symlink_to(target)

    with ScriptedDaemon(launcher.run_dir, edit_it):
        assert launcher.run("create", "c1", preexec_fn=leave_a_link).returncode == 0
    assert target.read_text() == "precious"
    assert launcher.config.read_bytes() == EDITED
    assert launcher.leftovers() == []


def test_a_full_disk_leaves_config_json_as_it_was(launcher: Launcher) -> None:
    """The new file is whole before it takes the old one's place."""
    text = launcher.write(config(REQUEST))

    def little_room() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))

    with ScriptedDaemon(launcher.run_dir, edit_it):
        result = launcher.run("create", "c1", preexec_fn=little_room)
    assert "cannot be replaced" in refused_with(launcher, result)
    assert launcher.config.read_bytes() == text


# The image's own /etc/ld.so.preload


def plain(rootfs: Path) -> None:
    (rootfs / "etc/ld.so.preload").write_text("/lib/x.so\n")


def absolute_link(rootfs: Path) -> None:
    (rootfs / "opt").mkdir()
    (rootfs / "opt/p").write_text("/lib/x.so\n")
    (rootfs / "etc/ld.so.preload").symlink_to("/opt/p")


def escaping_link(rootfs: Path) -> None:
    (rootfs.parent / "secret").write_text("/secret\n")
    (rootfs / "etc/ld.so.preload").symlink_to("../../secret")


def host_link(rootfs: Path) -> None:
    (rootfs / "etc/ld.so.preload").symlink_to("/etc/passwd")


def etc_link(rootfs: Path) -> None:
    (rootfs / "etc").rmdir()
    (rootfs / "etc").symlink_to("/proc/self/root/etc")


def magic_link(rootfs: Path) -> None:
    (rootfs / "etc/ld.so.preload").symlink_to("/proc/self/fd/0")


def device(rootfs: Path) -> None:
    os.mknod(rootfs / "etc/ld.so.preload", 0o020666, os.makedev(1, 5))  # /dev/zero


def fifo(rootfs: Path) -> None:
    os.mkfifo(rootfs / "etc/ld.so.preload")


def loop(rootfs: Path) -> None:
    (rootfs / "etc/ld.so.preload").symlink_to("ld.so.preload")


def folder(rootfs: Path) -> None:
    (rootfs / "etc/ld.so.preload").mkdir()


def nothing(rootfs: Path) -> None:
    pass


def no_root(rootfs: Path) -> None:
    (rootfs / "etc").rmdir()
    rootfs.rmdir()


@pytest.mark.parametrize(
    "make,read",
    [(plain, b"/lib/x.so\n"), (absolute_link, b"/lib/x.so\n")]
    + [
        (make, b"")
        for make in (
            escaping_link, host_link, etc_link, magic_link, device, fifo, loop, nothing, no_root
        )
    ],
)  # fmt: skip
def test_the_images_preload_is_read_within_the_image(launcher: Launcher, make: Any, read: bytes) -> None:
    """Links are followed inside it; nothing of the host is read, no device opened, no fifo waited for."""
    if make is device and os.geteuid() != 0:
        pytest.skip("needs root: makes a device node")
    text = launcher.write(config(REQUEST))
    make(launcher.rootfs)
    with ScriptedDaemon(launcher.run_dir, edit_it) as daemon:
        assert launcher.create().returncode == 0
    assert daemon.seen[0].body == text + read
    assert daemon.seen[0].head["preload_bytes"] == len(read)


def test_a_preload_that_is_a_folder_is_refused(launcher: Launcher) -> None:
    """A file can't be mounted over it, and the loader would take no list of ours."""
    launcher.write(config(REQUEST))
    folder(launcher.rootfs)
    assert "GP311" in (text := refused_with(launcher, launcher.create())) and "is a folder" in text


def test_an_absolute_root_is_found(launcher: Launcher) -> None:
    """docker names it absolutely; escapes in the path are the path's."""
    elsewhere = launcher.bundle.parent / "gráph root"
    (elsewhere / "etc").mkdir(parents=True)
    plain(elsewhere)
    launcher.write(json.dumps(config(REQUEST, root=str(elsewhere))).replace("/", "\\/"))
    with ScriptedDaemon(launcher.run_dir, edit_it) as daemon:
        assert launcher.create().returncode == 0
    assert daemon.seen[0].body.endswith(b"/lib/x.so\n")


def test_a_preload_that_is_too_large_is_refused(launcher: Launcher) -> None:
    """Cut short, it would lose libraries that the image relies on."""
    launcher.write(config(REQUEST))
    (launcher.rootfs / "etc/ld.so.preload").write_bytes(b"#" * (64 << 10))
    with ScriptedDaemon(launcher.run_dir, edit_it) as daemon:
        assert launcher.create().returncode == 0
        assert daemon.seen[0].head["preload_bytes"] == 64 << 10
    (launcher.rootfs / "etc/ld.so.preload").write_bytes(b"#" * ((64 << 10) + 1))
    launcher.write(config(REQUEST))
    (launcher.bundle.parent / "recorded.json").unlink()
    assert "larger than 64 KiB" in refused_with(launcher, launcher.create())
