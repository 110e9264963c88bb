"""What a plain process gets to be held to its portion."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gpuportion.allocator import host_portion
from gpuportion.allocator.host_portion import HostPortions
from gpuportion.allocator.injection import Programs
from gpuportion.errors import GpuportionError


@pytest.fixture
def installed(tmp_path: Path) -> Programs:
    names = ("libcap_mem.so", "libcap_nvml.so", "hook", "libcap_alias.so")
    for name in names:
        (tmp_path / name).write_bytes(name.encode())
    return Programs(*(str(tmp_path / name) for name in names))


@pytest.fixture
def driver(tmp_path: Path) -> Path:
    """A driver's folder as on a host: real files with versions, links to them."""
    folder = tmp_path / "driver"
    folder.mkdir()
    for name in ("libcuda.so", "libnvidia-ml.so"):
        (folder / f"{name}.550.54").write_text(f"the real {name}")
        (folder / f"{name}.1").symlink_to(f"{name}.550.54")
    (folder / "libcuda.so").symlink_to("libcuda.so.1")
    (folder / "libcudart.so.12").write_text("not the driver's")
    return folder


@pytest.fixture
def portions(tmp_path: Path, installed: Programs, driver: Path) -> HostPortions:
    return HostPortions(str(tmp_path / "state"), lambda: installed, lambda: str(driver))


def test_the_folder_has_our_libraries_by_every_name_and_the_policy(
    portions: HostPortions, tmp_path: Path, driver: Path
) -> None:
    """The loader finds them first; the library finds its policy beside itself, and the real driver."""
    made = portions.make("t" * 32, "/run/grants/t", mounts=False)
    folder = Path(made.folder)
    assert {path.name for path in folder.iterdir()} == {
        "driver",
        "libcuda.so",
        "libcuda.so.1",
        "libnvidia-ml.so",
        "libnvidia-ml.so.1",
        "policy",
    }
    assert (folder / "libcuda.so.1").read_bytes() == b"libcap_mem.so"
    assert (folder / "libcuda.so").stat().st_ino == (folder / "libcuda.so.1").stat().st_ino
    assert not (folder / "libcuda.so.1").is_symlink()  # the library's folder is where the kernel says it is
    assert os.readlink(folder / "policy") == "/run/grants/t/policy"
    assert Path(portions.driver_file("t" * 32, "libcuda.so")).read_text() == "the real libcuda.so"
    assert made.env["LD_LIBRARY_PATH"] == made.folder and made.env["LD_PRELOAD"].startswith(f"{made.folder}/")
    assert made.mounts == ()


def test_with_mounts_the_real_driver_is_moved_aside_first(
    portions: HostPortions, driver: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every real file once, links followed; then ours over it, of the same inode as in the folder."""
    monkeypatch.setattr(host_portion, "SELF", str(tmp_path / "self"))
    made = portions.make("t" * 32, "/run/grants/t", mounts=True)
    cuda, nvml = str(driver / "libcuda.so.550.54"), str(driver / "libnvidia-ml.so.550.54")
    assert made.mounts == (
        (cuda, f"{made.folder}/driver/libcuda.so.1"),
        (nvml, f"{made.folder}/driver/libnvidia-ml.so.1"),
        (f"{made.folder}/libcuda.so.1", cuda),
        (f"{made.folder}/libnvidia-ml.so.1", nvml),
        ("/run/grants/t", str(tmp_path / "self")),
    )
    assert all(Path(target).exists() for _, target in made.mounts)


def test_all_grants_share_one_copy(portions: HostPortions) -> None:
    """Names of their own, pages of memory in common; the copy outlives a grant."""
    folders = [Path(portions.make(token, "/p", mounts=False).folder) for token in ("a" * 32, "b" * 32)]
    assert len({(folder / "libcuda.so.1").stat().st_ino for folder in folders}) == 1
    portions.remove("a" * 32)
    assert portions.tokens() == ["b" * 32]
    assert (folders[1] / "libcuda.so.1").exists()
    portions.remove("a" * 32)  # twice is once


def test_a_new_build_gets_a_new_copy(portions: HostPortions, installed: Programs) -> None:
    """Processes that run keep the old one."""
    first = Path(portions.make("a" * 32, "/p", mounts=False).folder)
    Path(installed.library).write_bytes(b"a newer build")
    second = Path(portions.make("b" * 32, "/p", mounts=False).folder)
    assert (first / "libcuda.so.1").read_bytes() == b"libcap_mem.so"
    assert (second / "libcuda.so.1").read_bytes() == b"a newer build"


def test_no_driver_is_a_sentence(tmp_path: Path, installed: Programs) -> None:
    """Nothing is left behind that only looks like a portion."""
    portions = HostPortions(str(tmp_path / "state"), lambda: installed, lambda: "")
    with pytest.raises(GpuportionError, match=r"libcuda\.so\.1 is not in any folder"):
        portions.make("t" * 32, "/p", mounts=False)
    assert portions.tokens() == []
