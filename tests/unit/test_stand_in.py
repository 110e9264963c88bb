"""The stand-in for NVIDIA's CUDA runtime is for tests alone: no part of what is built or installed."""

from __future__ import annotations

import importlib.resources
import os
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("libcap_mem", "shim", "hooks", "simgpu")


def test_the_package_does_not_build_it() -> None:
    """No CMake file of the package names it or its folder."""
    files = [ROOT / "CMakeLists.txt", *(file for part in PARTS for file in (ROOT / part).rglob("*.cmake"))]
    files += [file for part in PARTS for file in (ROOT / part).rglob("CMakeLists.txt")]
    assert len(files) > len(PARTS)
    assert [str(file) for file in files if "cudart" in file.read_text()] == []


def test_the_installed_package_has_no_runtime() -> None:
    """Neither NVIDIA's nor ours, under any name that a loader looks for."""
    folders = [str(folder) for folder in importlib.resources.files("gpuportion")._paths]  # type: ignore[attr-defined]
    found = [name for folder in folders for _, _, names in os.walk(folder) for name in names]
    assert "__init__.py" in found
    assert [name for name in found if re.match(r"libcudart", name)] == []


def test_the_authenticity_check_is_never_asked_for() -> None:
    """It calls the driver's public functions; the private tables have no part in it."""
    sources = [file for file in (ROOT / "tests" / "cudart").rglob("*") if file.suffix in (".c", ".h", ".def")]
    assert len(sources) > 10
    assert [str(file) for file in sources if "cuGetExportTable" in file.read_text()] == []
