"""The libraries on top of NVIDIA's real user-space driver, on a machine without a GPU: nobody can tell the difference.

What needs a device is tests/gpu's.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.native import capped, nvidia_driver
from tests.native.capped import Grant
from tests.native.debian import UnavailableError
from tests.native.nvidia_driver import Driver
from tests.native.test_symbols import NEVER_EXPORTED, classes, unclassified
from tests.support.native import ROOT

ANSWERS = Path(__file__).with_name("driver_answers.py")
SYMBOLS = ROOT / "libcap_mem" / "symbols" / "cuda.txt"
NVML = SYMBOLS.with_name("nvml.txt")
INTERNAL = {"nvmlRetry_NvRmControl"}  # of 510 to 530: exported by an oversight, and nobody calls it
HOOKED = set(re.findall(r"^HOOK\((\w+),", (ROOT / "libcap_mem" / "hooks.def").read_text(), re.MULTILINE))
ANYBODY = "00" * 16


def _or_skip(fetch: Any, *args: Any) -> Any:
    try:
        return fetch(*args)
    except UnavailableError as why:
        pytest.skip(f"needs NVIDIA's own files: {why}")


@pytest.fixture(scope="module", params=nvidia_driver.WHOLE)
def driver(request: pytest.FixtureRequest) -> Driver:
    found = _or_skip(nvidia_driver.driver, request.param)
    assert isinstance(found, Driver)
    return found


@pytest.fixture(scope="module")
def grant(driver: Driver, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Grant]:
    gpu = f"{ANYBODY}:{1 << 30}:0"
    yield capped.make_grant(tmp_path_factory.mktemp("real"), str(driver.libcuda), str(driver.libnvml), [gpu])


@pytest.fixture(scope="module")
def bare(driver: Driver, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a process that sees the real driver alone."""
    folder = tmp_path_factory.mktemp("bare")
    (folder / "libcuda.so.1").symlink_to(driver.libcuda)
    (folder / "libnvidia-ml.so.1").symlink_to(driver.libnvml)
    return {**os.environ, "LD_LIBRARY_PATH": str(folder)}


def _functions(library: Path) -> set[str]:
    lines = subprocess.run(
        ["nm", "-D", "--defined-only", library], capture_output=True, text=True, check=True
    )
    rows = [line.split() for line in lines.stdout.splitlines()]
    return {row[-1].split("@")[0] for row in rows if row[-2] in "TWi"}


def test_every_function_of_the_driver_is_ours_too(driver: Driver, grant: Grant) -> None:
    """A client that looks up any function of the driver finds it; those where a debugger stops aside."""
    found = {name for name in _functions(driver.libcuda) if not NEVER_EXPORTED.match(name)}
    assert {name for name in found if name.startswith("cu")} <= _functions(grant.libcuda)
    assert {name for name in _functions(driver.libnvml) if name.startswith("nvml")} <= _functions(
        grant.libnvml
    )


@pytest.mark.parametrize("branch", sorted({*nvidia_driver.WHOLE, *nvidia_driver.FURTHER}))
def test_every_symbol_of_a_driver_is_classified(branch: int) -> None:
    """Functions and data, graphics interop among them; what is data there is not exported here."""
    library, *nvml = _or_skip(nvidia_driver.libraries, branch)
    assert {name for each in nvml for name in _functions(each)} - INTERNAL <= set(NVML.read_text().split())
    rows = subprocess.run(["nm", "-D", "--defined-only", library], capture_output=True, text=True, check=True)
    kinds = {line.split()[-1].split("@")[0]: line.split()[-2] for line in rows.stdout.splitlines()}
    ours = {name: kind for name, kind in kinds.items() if name.startswith("cu")}
    assert len(ours) > 500
    assert unclassified(set(ours)) == [], "not in libcap_mem/symbols/classes.tsv"
    table = classes()
    for name, kind in ours.items():
        assert (table[name][0] == "data") == (kind not in "TWi"), name
        assert str(branch) in table[name][1].split(), f"classes.tsv does not say that {branch} has {name}"


def test_lookups_answer_row_by_row_as_the_driver(
    driver: Driver, grant: Grant, bare: dict[str, str], tmp_path: Path
) -> None:
    """cuGetProcAddress for every name, version and flag: the driver's answer, or our body of that very symbol."""
    bases = tmp_path / "bases"
    names = SYMBOLS.read_text().split()
    bases.write_text("\n".join(sorted({re.sub(r"(_v\d+)?(_pt[sd][sz])?$", "", name) for name in names})))

    def ask(library: str, env: dict[str, str]) -> Any:
        command = [sys.executable, str(ANSWERS), library, str(driver.libcuda), str(SYMBOLS), str(bases)]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
        assert done.stderr == ""
        return json.loads(done.stdout)

    native, ours = ask("libcuda.so.1", bare), ask("libcuda.so.1", grant.preload())
    for key in ("version", "init", "info"):
        assert ours[key] == native[key], key
    assert len(native["lookup"]) > 20_000
    swapped = set()
    for row, (rc, status, symbol) in native["lookup"].items():
        expected = [rc, status, f"ours:{symbol}" if symbol in HOOKED else symbol]
        assert ours["lookup"][row] == expected, row
        swapped |= {symbol} & HOOKED
    assert len(swapped) > 50


@pytest.mark.parametrize("major", nvidia_driver.RUNTIMES)
def test_nvidias_runtime_says_the_same(
    driver: Driver, grant: Grant, bare: dict[str, str], major: int
) -> None:
    """NVIDIA's own libcudart, which looks up hundreds of functions and checks its driver."""
    runtime = _or_skip(nvidia_driver.cudart, major)
    script = (
        "import ctypes, sys\n"
        "rt = ctypes.CDLL(sys.argv[1]); n = ctypes.c_int(-1); v = ctypes.c_int(-1); p = ctypes.c_void_p()\n"
        "rt.cudaGetErrorString.restype = ctypes.c_char_p\n"
        "print(rt.cudaGetDeviceCount(ctypes.byref(n)), n.value, rt.cudaDriverGetVersion(ctypes.byref(v)), v.value)\n"
        "rc = rt.cudaMalloc(ctypes.byref(p), ctypes.c_size_t(100)); print(rc, rt.cudaGetErrorString(rc))\n"
        "print(rt.cudaFree(None), rt.cudaDeviceSynchronize(), rt.cudaGetLastError())"
    )

    def ask(env: dict[str, str]) -> tuple[str, str]:
        command = [sys.executable, "-c", script, str(runtime)]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
        return done.stdout, done.stderr

    native = ask(bare)
    assert ask(grant.preload()) == native
    # cudaErrorNoDevice: it has spoken to the driver. cudaErrorInsufficientDriver: CUDA 13 wants 580 or newer.
    assert native[0].startswith("35 " if major > 12 and driver.branch < 580 else "100 ")


def test_nvidia_smi_says_the_same(driver: Driver, grant: Grant, bare: dict[str, str]) -> None:
    """nvidia-smi opens NVML by name, and reports what it finds wrong."""

    def ask(env: dict[str, str], *arguments: str) -> tuple[int, str, str]:
        done = subprocess.run([driver.smi, *arguments], env=env, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout, done.stderr

    for arguments in ((), ("-L",), ("-q",), ("--help",)):
        native = ask(bare, *arguments)
        assert ask(grant.preload(), *arguments) == native
        assert ask(grant.on_path(), *arguments) == native


def test_pynvml_says_the_same(grant: Grant, bare: dict[str, str]) -> None:
    """The Python binding: its error, and the library's text for it."""
    script = "import pynvml\ntry: pynvml.nvmlInit()\nexcept pynvml.NVMLError as e: print(e.value, e)"

    def ask(env: dict[str, str]) -> str:
        command = [sys.executable, "-c", script]
        return subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout

    assert ask(grant.preload()) == ask(bare) != ""
