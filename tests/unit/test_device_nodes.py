"""Numbers of a host's device nodes."""

from __future__ import annotations

from pathlib import Path

from gpuportion.allocator import device_nodes
from gpuportion.shim.cdi import ContainerEdits, DeviceNode


def test_a_nodes_numbers_are_those_of_the_host(tmp_path: Path) -> None:
    """A plain file, or nothing, has none: the edit then refuses."""
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("/dev/zero")
    paths = ["/dev/null", f"{tmp_path}/file", f"{tmp_path}/none", f"{tmp_path}/link"]
    edits = ContainerEdits(device_nodes=tuple(DeviceNode("/dev/in-container", path) for path in paths))
    assert device_nodes.numbers(edits) == {"/dev/null": ("c", 1, 3), f"{tmp_path}/link": ("c", 1, 5)}


def test_the_drivers_majors_hold_the_fixed_one() -> None:
    """Also where no driver is loaded."""
    assert 195 in device_nodes.driver_majors()
