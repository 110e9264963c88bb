"""A driver in the image: which of its files become the host's, and which are left alone."""

from __future__ import annotations

import pytest
from tests.support.gpu_specs import LIB, injection

from gpuportion.shim import spec
from gpuportion.shim.image_drivers import Found, Ours, covers

OURS = Ours(cuda="/opt/cap.so", nvml="/opt/nvml.so")
COMPAT = "/usr/local/cuda-12.8/compat"
JIT = f"{LIB}/libnvidia-ptxjitcompiler.so.550.54.15"
EDITS = injection().driver.edits


def covered(name: str, path: str, *places: str) -> str | None:
    return covers([Found(name, path)], EDITS, OURS, places).get(path)


@pytest.mark.parametrize(
    "name,file,source",
    [
        ("libcuda.so.1", "libcuda.so.570.86.10", OURS.cuda),
        ("libcuda.so", "stored-elsewhere", OURS.cuda),
        ("libnvidia-ml.so.1", "libnvidia-ml.so.570.86.10", OURS.nvml),
        ("libnvidia-ptxjitcompiler.so.1", "libnvidia-ptxjitcompiler.so.570.86.10", JIT),
        ("libnvidia-nvvm.so.4", "libnvidia-nvvm.so.570.86.10", None),
        ("libcudadebugger.so.1", "libcudadebugger.so.570.86.10", None),
        ("libnvidia-ptxjitcompiler.so.bak", "x", None),
    ],
)
def test_each_file_becomes_its_counterpart(name: str, file: str, source: str | None) -> None:
    """Ours, the host's file of that library, or nothing where the host has none."""
    assert covered(name, f"{COMPAT}/{file}") == source


@pytest.mark.parametrize(
    "path", ["", "/", "a/libcuda.so.1", "/a/../b/libcuda.so.1", "/a//libcuda.so.1", "/a b", "/a\n"]
)
def test_a_path_that_cannot_be_is_left_alone(path: str) -> None:
    """Nothing but a plain path becomes a place to mount at."""
    assert covered("libcuda.so.1", path) is None


@pytest.mark.parametrize(
    "path", ["/.gpuportion", "/.gpuportion/libcuda.so.1", "/etc/ld.so.preload", f"{LIB}/libcuda.so.550.54.15"]
)
def test_where_something_of_ours_lies_is_left_alone(path: str) -> None:
    """Whatever links of the image lead there."""
    assert covered("libcuda.so.1", path) is None


def test_what_a_mount_hides_is_left_alone() -> None:
    """A place made for it would be in the volume."""
    path = f"{COMPAT}/libcuda.so.1"
    assert covered("libcuda.so.1", path, "/usr/local") is None
    assert covered("libcuda.so.1", path, "/usr/loc", "/usr/local/cuda") == OURS.cuda


def test_a_deep_path_is_read_at_once() -> None:
    """Whether or not it is one in the end: a daemon that thinks about it for years serves nobody."""
    deep = "/d" * 500
    assert covered("libcuda.so.1", f"{deep}/libcuda.so.1") == OURS.cuda
    assert covered("libcuda.so. x", f"{deep}/libcuda.so. x") is None


def test_the_image_is_never_a_source() -> None:
    """In the whole edit its path is only a destination, before our own folder and behind the user's mounts."""
    path = f"{COMPAT}/libcuda.so.570.86.10"
    made = injection(image_drivers=(Found("libcuda.so.1", path),))
    user = {"destination": "/data", "source": "/data", "type": "bind", "options": ["rbind"]}
    mounts = spec.edit({"mounts": [user]}, made)["mounts"]
    (cover,) = [each for each in mounts if each["destination"] == path]
    assert (
        made.driver.libraries and cover["source"] == made.driver.libraries.cuda and "ro" in cover["options"]
    )
    order = [each["destination"] for each in mounts]
    assert order.index("/data") < order.index(path) < order.index("/.gpuportion")
    assert all(each["source"] != path for each in mounts)


@pytest.mark.parametrize(
    ("name", "place", "covered"),
    [
        ("libcuda.so.1", "/data", "cuda"),
        ("libnvidia-ml.so.1", "/data", "nvml"),
        ("libcuda.so.1", "/usr//local/.", None),
        ("libnvidia-ml.so.1", COMPAT, None),
    ],
)
def test_in_the_edit_each_is_covered_unless_a_mount_hides_it(
    name: str, place: str, covered: str | None
) -> None:
    """By its own counterpart of ours; however the mount's destination is written."""
    path = f"{COMPAT}/{name}"
    made = injection(image_drivers=(Found(name, path),))
    user = {"destination": place, "source": "/data", "type": "bind", "options": ["rbind"]}
    mounts = spec.edit({"mounts": [user]}, made)["mounts"]
    sources = [each["source"] for each in mounts if each["destination"] == path]
    assert sources == ([getattr(made.driver.libraries, covered)] if covered else [])


@pytest.mark.parametrize(
    ("linked", "is_covered"),
    [({}, True), ({"/data": "/usr/local/cuda-12.8"}, False), ({"/other": "/usr/local/cuda-12.8"}, True)],
)
def test_a_volume_that_a_link_leads_over_the_file_gets_no_place_for_it(
    linked: dict[str, str], is_covered: bool
) -> None:
    """The image's links say where a mount lies; the file is hidden, and its cover would be made in the volume."""
    path = "/usr/local/cuda-12.8/compat/libcuda.so.1"
    made = injection(image_drivers=(Found("libcuda.so.1", path),), image_mounts=linked)
    user = {"destination": "/data", "source": "/data", "type": "bind", "options": ["rbind"]}
    mounts = spec.edit({"mounts": [user]}, made)["mounts"]
    assert (path in [each["destination"] for each in mounts]) is is_covered
