"""The export surface: every symbol, and what cuGetProcAddress answers for every name, version and flag."""

from __future__ import annotations

import ctypes
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

import pytest

HERE: Final = Path(__file__).parent
SOURCES: Final = HERE.parents[1] / "simgpu"
NEWEST: Final = {"550": 12040, "595": 13020}
"""The CUDA version of each recorded driver: of what is newer it knows nothing."""
FOUND, UNKNOWN, TOO_OLD = 0, 1, 2
NOT_FOUND, NOT_SUPPORTED = 500, 801


def table(path: Path) -> list[list[str]]:
    return [line.split("\t") for line in path.read_text().splitlines() if not line.startswith("#")]


@pytest.fixture(scope="module")
def cuda(libraries: Path) -> ctypes.CDLL:
    """The simulated library in this process: names and addresses need no device."""
    return ctypes.CDLL(str(libraries / "libcuda.so.1"))


def address(cuda: ctypes.CDLL, symbol: str) -> int | None:
    return ctypes.cast(getattr(cuda, symbol), ctypes.c_void_p).value


def asked(cuda: ctypes.CDLL, name: str, version: int, flags: int) -> tuple[int | None, int, int]:
    """(address, result, status)"""
    found, status = ctypes.c_void_p(), ctypes.c_int(-1)
    flag = ctypes.c_uint64(flags)
    result = cuda.cuGetProcAddress_v2(name.encode(), ctypes.byref(found), version, flag, ctypes.byref(status))
    return found.value, result, status.value


def rows(driver: str) -> Iterator[tuple[str, int, int, str, int, int]]:
    """In 595's file are the names alone that it answers otherwise."""
    own = table(HERE / f"getprocaddress-{driver}.tsv")
    known = {row[0] for row in own}
    same = [row for row in table(HERE / "getprocaddress-550.tsv") if row[0] not in known]
    for name, flags, version, symbol, result, status in own + same:
        yield name, int(flags), int(version), symbol, int(result), int(status)


@pytest.mark.parametrize("driver", NEWEST)
def test_get_proc_address_answers_as_the_real_driver(cuda: ctypes.CDLL, driver: str) -> None:
    """Every row of a driver's table, at its version and at the last one before the next row."""
    recorded = list(rows(driver))
    wrong = []
    for row, following in zip(recorded, [*recorded[1:], None], strict=True):
        name, flags, version, symbol, result, status = row
        same = following is not None and following[:2] == (name, flags)
        last = following[2] - 1 if same and following else NEWEST[driver]
        expected = (None if symbol == "-" else address(cuda, symbol), result, status)
        wrong += [(row, v) for v in {version, last} if asked(cuda, name, v, flags) != expected]
    assert len(recorded) > 2600
    assert not wrong


@pytest.mark.parametrize(
    ("name", "version", "flags", "symbol"),
    [
        ("cuCtxCreate", 12040, 0, "cuCtxCreate_v3"),
        ("cuCtxCreate", 12050, 0, "cuCtxCreate_v4"),
        ("cuMemcpyBatchAsync", 12080, 2, "cuMemcpyBatchAsync_ptsz"),
        ("cuMemcpyBatchAsync", 13000, 2, "cuMemcpyBatchAsync_v2_ptsz"),
        ("cuGraphAddNode", 13040, 0, "cuGraphAddNode_v3"),
        ("cuMemGetMemPool", 13000, 0, "cuMemGetMemPool"),
        ("cuFabricCpyBatchAsync", 13050, 0, "cuFabricCpyBatchAsync"),
        ("cuMemAlloc", 99999, 0, "cuMemAlloc_v2"),
    ],
)
def test_newer_names_follow_the_headers(
    cuda: ctypes.CDLL, name: str, version: int, flags: int, symbol: str
) -> None:
    """Beyond the recorded driver the versions are those of cudaTypedefs.h."""
    assert asked(cuda, name, version, flags) == (address(cuda, symbol), 0, FOUND)


def test_what_is_not_there_is_told_apart(cuda: ctypes.CDLL) -> None:
    """Unknown, known but newer, and the empty name that runtimes probe with; in both ABIs."""
    assert asked(cuda, "cuMemGetMemPool", 12090, 0) == (None, 0, TOO_OLD)
    assert asked(cuda, "cuNoSuchThing", 13050, 0) == (None, 0, UNKNOWN)
    assert asked(cuda, "", 0, 0) == (None, 0, UNKNOWN)
    found, flags = ctypes.c_void_p(1), ctypes.c_uint64(0)
    assert cuda.cuGetProcAddress(b"cuNoSuchThing", ctypes.byref(found), 13050, flags) == NOT_FOUND
    assert found.value is None
    assert cuda.cuGetProcAddress(b"cuMemAlloc", ctypes.byref(found), 3010, flags) == 0
    assert found.value == address(cuda, "cuMemAlloc")


def test_no_private_table_is_handed_out(cuda: ctypes.CDLL) -> None:
    """By them NVIDIA's libraries authenticate the driver, which this one is not."""
    out = ctypes.c_void_p(1)
    for identity in (bytes(16), bytes.fromhex("6bd5fb6c5bf4e74a8987d93912fd9df9")):
        assert cuda.cuGetExportTable(ctypes.byref(out), identity) == NOT_FOUND
        assert out.value is None


def test_what_is_not_simulated_says_so(cuda: ctypes.CDLL) -> None:
    """Every exported function without a body answers CUDA_ERROR_NOT_SUPPORTED, whatever its arguments."""
    for name in (
        "cuGraphConditionalHandleCreate",
        "cuTexRefCreate",
        "cudbgGetAPI",
        "cuLogicalEndpointExport",
    ):
        assert getattr(cuda, name)(0, 0, 0, 0) == NOT_SUPPORTED


@cache
def elf(library: Path) -> str:
    return subprocess.run(
        ["readelf", "--dynamic", "--dyn-syms", "--wide", library], capture_output=True, text=True, check=True
    ).stdout


@pytest.mark.parametrize(
    ("library", "names"),
    [
        ("libcuda.so.1", {row[3] for row in table(SOURCES / "driver_api.tsv")}),
        ("libnvidia-ml.so.1", {row[0] for row in table(SOURCES / "nvml_names.txt")}),
    ],
)
def test_a_library_exports_its_table_and_nothing_else(libraries: Path, library: str, names: set[str]) -> None:
    """As functions, under the names that loaders look for, needing nothing newer than glibc 2.17."""
    text = elf(libraries / library)
    exported = re.findall(r" FUNC +GLOBAL +DEFAULT +\d+ (\S+)", text)
    assert sorted(exported) == sorted(names)
    assert f"soname: [{library}]" in text
    needed = re.findall(r"\(NEEDED\).*\[(.*)\]", text)
    assert [name for name in needed if not name.startswith("ld-linux")] == ["libc.so.6"]
    versions = {tuple(map(int, v.split("."))) for v in re.findall(r"@GLIBC_([\d.]+)", text)}
    assert max(versions) <= (2, 17)


def test_the_tables_cover_what_drivers_export(libraries: Path) -> None:
    """CUDA 13.5's symbols and those of drivers 550 and 595: the numbers of the sources they were made from."""
    assert len(table(SOURCES / "driver_api.tsv")) == 736
    assert len(table(SOURCES / "nvml_names.txt")) == 431
