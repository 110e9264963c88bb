"""Read-only volumes over the places of a driver's files, and where the files go then."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.support.gpu_specs import FILES, LIB, driver, injection

from gpuportion.allocator import injection as gathering
from gpuportion.errors import GpuportionError
from gpuportion.shim import spec, volumes

TARGET = f"{LIB}/libcuda.so.1"


def bind(place: str, *options: str, source: str = "/host") -> dict[str, Any]:
    return {"destination": place, "source": source, "type": "bind", "options": ["rbind", *options]}


@pytest.mark.parametrize(
    "mounts,found",
    [
        ([], None),
        ([bind("/usr")], None),
        ([bind("/usr", "ro")], "/host/lib/x86_64-linux-gnu/libcuda.so.1"),
        ([bind("//usr/./", "ro")], "/host/lib/x86_64-linux-gnu/libcuda.so.1"),
        ([bind(LIB, "ro")], "/host/libcuda.so.1"),
        ([bind(TARGET, "ro")], "/host"),
        ([bind("/", "ro")], f"/host{TARGET}"),
        ([bind("/us", "ro"), bind("/usr/lib/x86", "ro")], None),
        ([bind("/usr", "ro"), bind("/usr/lib")], None),
        ([bind("/usr/lib"), bind("/usr", "ro")], "/host/lib/x86_64-linux-gnu/libcuda.so.1"),
        ([{"destination": "/usr", "type": "tmpfs", "options": ["ro"]}], None),
        ([{"destination": "/usr"}], None),
    ],
)
def test_the_last_mount_over_a_target_counts(mounts: list[dict[str, Any]], found: str | None) -> None:
    """Its own path on the host, if that mount is a bind and read-only."""
    assert volumes.read_only(mounts, [TARGET]).get(TARGET) == found


@pytest.mark.parametrize(
    ("mount", "is_over"),
    [
        (bind("/usr", "ro"), True),
        (bind("//usr/./lib/", "ro"), True),
        (bind("/", "ro"), True),
        (bind("/etc/ld.so.preload", "ro"), True),
        (bind(f"{LIB}/libnvidia-ml.so.550.54.15", "ro"), True),
        (bind("/usr"), False),
        (bind("/data", "ro"), False),
        (bind("/usr/lib/x", "ro"), False),
        ({"destination": "/usr", "type": "tmpfs", "options": ["ro"]}, False),
        ({"destination": "/usr", "type": "bind", "options": ["ro"]}, True),
        ({"destination": "/usr", "type": "bind", "options": "ro"}, False),
    ],
)
def test_only_a_read_only_bind_over_the_driver_is_in_its_way(mount: dict[str, Any], is_over: bool) -> None:
    """At a file of it, at our ld.so.preload, or at a folder above."""
    assert volumes.any_at([bind("/x"), mount], driver().above) is is_over


def test_only_what_is_missing_there_is_displaced(tmp_path: Path) -> None:
    """A file that the volume has is covered in its place: left open it would be a driver that doesn't count."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/nvidia-smi").touch()
    displaced = gathering.displaced([bind("/usr", "ro", source=str(tmp_path))], driver(), frozenset())
    assert displaced == {each for each in FILES if each.startswith(LIB)}


def test_an_etc_without_ld_so_preload_is_refused(tmp_path: Path) -> None:
    """The sentence names the file to make on the host."""
    mounts = [bind("/etc", "ro", source=str(tmp_path))]
    with pytest.raises(GpuportionError, match=f"GP311|{tmp_path}/ld.so.preload is missing"):
        gathering.displaced(mounts, driver(), frozenset())
    (tmp_path / "ld.so.preload").touch()
    assert gathering.displaced(mounts, driver(), frozenset()) == frozenset()


def test_a_file_that_is_mounted_at_the_very_place_is_a_place(tmp_path: Path) -> None:
    """A user's own ld.so.preload, read-only: ours comes over it."""
    own = tmp_path / "preload"
    own.touch()
    mounts = [bind("/etc/ld.so.preload", "ro", source=str(own))]
    assert gathering.displaced(mounts, driver(), frozenset()) == frozenset()


def test_displaced_files_lie_in_our_folder() -> None:
    """Found by LD_LIBRARY_PATH, behind the image's own; libcuda is ours there as well; no links are made."""
    made = injection(displaced=frozenset(each for each in FILES if each.startswith(LIB)))
    edited = spec.edit({"process": {"env": ["LD_LIBRARY_PATH=/opt/lib"]}}, made)
    sources = {each["destination"]: each["source"] for each in edited["mounts"]}
    assert not [place for place in sources if place.startswith(LIB)]
    libraries = made.driver.libraries
    assert libraries is not None
    assert sources["/.gpuportion/lib/libcuda.so.550.54.15"] == libraries.cuda
    assert sources["/.gpuportion/lib/libnvidia-ml.so.550.54.15"] == libraries.nvml
    assert sources["/.gpuportion/lib/libnvidia-ptxjitcompiler.so.550.54.15"] == FILES[2]
    assert sources["/usr/bin/nvidia-smi"] == "/usr/bin/nvidia-smi"
    assert len([place for place in sources if place.startswith("/.gpuportion/lib/")]) == 3
    assert "LD_LIBRARY_PATH=/opt/lib:/.gpuportion/lib" in edited["process"]["env"]
    assert [hook["args"][1] for hook in edited["hooks"]["createContainer"]] == ["update-ldcache"]


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ([], "/.gpuportion/lib"),
        (["LD_LIBRARY_PATH="], "/.gpuportion/lib"),
        (["LD_LIBRARY_PATH=/a:/b=c"], "/a:/b=c:/.gpuportion/lib"),
    ],
)
def test_our_folder_is_the_last_place_of_the_loader(env: list[str], expected: str) -> None:
    """Behind the image's own, whatever they are called; never behind an empty one, the working directory. Where all
    files have their place, the variable is left as it is."""
    made = injection(displaced=frozenset({TARGET}))
    after = spec.edit({"process": {"env": env}}, made)["process"]["env"]
    found = [entry for entry in after if entry.startswith("LD_LIBRARY_PATH=")]
    assert found == [f"LD_LIBRARY_PATH={expected}"]
    again = spec.edit({"process": {"env": env}}, injection())["process"]["env"]
    assert [entry for entry in again if entry.startswith("LD_LIBRARY_PATH=")] == env
