"""The wheels as `make wheel` makes them, for both architectures: what is in them, and that they work when installed."""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from tools import wheels

from tests.support import emulation, native
from tests.support.daemon import Daemon
from tests.support.native import ROOT

MACHINES = {"x86_64": "Advanced Micro Devices X86-64", "aarch64": "AArch64"}
LOADER = re.compile(r"ld-linux-.*")
NEEDED: dict[str, list[str]] = {
    "_region.abi3.so": ["libc.so.6"],
    "bin/gpuportion-hook": [],
    "bin/gpuportion-runtime": [],
    "lib/libcap_alias.so": ["libcuda.so.1"],
    "lib/libcap_mem.so": ["libc.so.6"],
    "lib/libcap_nvml.so": ["libc.so.6"],
    "sim/lib/libcuda.so.1": ["libc.so.6"],
    "sim/lib/libnvidia-ml.so.1": ["libc.so.6"],
}
"""All that is compiled, and what it needs besides the loader."""
GUESTS = (2, 17)
"""The newest glibc that what goes into containers may ask for."""
BUILD_ONLY = {
    "CMakeLists.txt", "generate.py", "write_sentences.py", "driver_api.tsv", "nvml_names.txt",
}  # fmt: skip
MODULES = ("cffi", "_cffi_backend", "orjson", "pycparser", "pynvml", "yaml", "tomli")
"""What gpuportion depends on, and these on, as far as this Python needs it."""

MEMORY = """
import ctypes as c
cu = c.CDLL("libcuda.so.1")
context, free, total = c.c_void_p(), c.c_size_t(), c.c_size_t()
assert cu.cuInit(0) == 0 and cu.cuDevicePrimaryCtxRetain(c.byref(context), 0) == 0
assert cu.cuCtxSetCurrent(context) == 0 and cu.cuMemGetInfo_v2(c.byref(free), c.byref(total)) == 0
print(total.value >> 20)
"""


@functools.cache
def wheel(architecture: str) -> Path:
    """Made once for a run of tests."""
    here = os.uname().machine
    if architecture != here and (missing := emulation.missing()):
        pytest.skip(f"needs {missing}")
    work = native.build_folder() / "wheels"
    (made,) = wheels.make([architecture], work / "dist", work)
    return made


@pytest.fixture(params=MACHINES)
def architecture(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@dataclass(frozen=True)
class Elf:
    machine: str
    needed: list[str]
    interpreter: bool
    glibc: tuple[int, int]


def read(data: bytes) -> Elf:
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        command = ["readelf", "--wide", "--file-header", "--dynamic", "--program-headers", file.name]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    (machine,) = re.findall(r"Machine:\s+(.*)", told)
    needed = [name for name in re.findall(r"NEEDED.*\[(.*)\]", told) if not LOADER.fullmatch(name)]
    return Elf(machine, needed, bool(re.search(r"^\s+INTERP", told, re.M)), wheels.glibc_of(data))


def test_every_compiled_file_is_there_and_of_the_architecture(architecture: str) -> None:
    """Nothing else is compiled; the programs are static, the libraries need libc alone."""
    found = {
        name.removeprefix("gpuportion/"): read(data)
        for name, data in wheels.elves(wheel(architecture)).items()
    }
    assert {name: elf.needed for name, elf in found.items()} == NEEDED
    assert {elf.machine for elf in found.values()} == {MACHINES[architecture]}
    assert not any(elf.interpreter for elf in found.values())
    assert max(elf.glibc for name, elf in found.items() if name.startswith("lib/")) <= GUESTS


def test_the_tag_is_what_the_files_ask_for(architecture: str) -> None:
    """One wheel for every Python since 3.10, on every Linux since the newest glibc that is asked for."""
    path = wheel(architecture)
    *_, python, abi, platform = path.stem.split("-")
    asked = max(GUESTS, *(wheels.glibc_of(data) for data in wheels.elves(path).values()))
    assert (python, abi) == ("cp310", "abi3")
    assert platform == f"manylinux_{asked[0]}_{asked[1]}_{architecture}"
    with zipfile.ZipFile(path) as file:
        (told,) = (name for name in file.namelist() if name.endswith(".dist-info/WHEEL"))
        lines = file.read(told).decode().splitlines()
    assert f"Tag: {python}-{abi}-{platform}" in lines and "Root-Is-Purelib: false" in lines


def sources() -> dict[str, bytes]:
    """The package as it lies in this checkout, but for what only the build reads."""
    package = ROOT / "src" / "gpuportion"
    files = (
        Path(folder, name)
        for folder, _, names in os.walk(package, followlinks=True)
        for name in names
        if not folder.endswith("__pycache__") and name not in BUILD_ONLY
    )
    kept = (file for file in files if file.suffix not in (".c", ".h", ".def", ".so"))
    return {str(file.relative_to(package.parent)): file.read_bytes() for file in kept}


def test_nothing_but_the_package_is_in_it(architecture: str) -> None:
    """Its Python files as they are here: no tests, no C, nothing that only the build reads."""
    with zipfile.ZipFile(wheel(architecture)) as file:
        held = {name: file.read(name) for name in file.namelist()}
    for name in wheels.elves(wheel(architecture)):
        del held[name]
    about = {name.partition(".dist-info/")[2] for name in held if ".dist-info/" in name}
    assert about == {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE"}
    assert {name: data for name, data in held.items() if ".dist-info/" not in name} == sources()


def pip(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Asks no index."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *words]
    return subprocess.run(command, capture_output=True, text=True, check=check)


def test_it_is_for_its_own_architecture_alone(architecture: str, tmp_path: Path) -> None:
    """pip takes it where it asks for such a platform, of whatever Python, and nowhere else."""
    words = ["install", "--no-index", "--no-deps", "--only-binary=:all:", "--target", str(tmp_path)]
    for platform in MACHINES:
        glibc = wheel(architecture).stem.split("-")[-1].removesuffix(architecture)
        where = ["--platform", f"{glibc}{platform}", "--python-version", "3.13"]
        done = pip(*words, *where, str(wheel(architecture)), check=False)
        assert (done.returncode == 0) == (platform == architecture), done.stdout + done.stderr
    assert (tmp_path / "gpuportion" / "lib" / "libcap_mem.so").exists()


def test_its_launcher_runs_on_aarch64(tmp_path: Path) -> None:
    """As installed, by qemu."""
    with zipfile.ZipFile(wheel("aarch64")) as file:
        program = Path(file.extract("gpuportion/bin/gpuportion-runtime", tmp_path))
    program.chmod(0o755)
    command = [emulation.QEMU, str(program), "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("gpuportion-runtime ")


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A Python that has this machine's wheel, what it depends on, and nothing else of this checkout."""
    folder = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin" / "python"
    pip("--python", str(python), "install", "--no-index", "--no-deps", str(wheel(os.uname().machine)))
    (site,) = folder.glob("lib/python*/site-packages")
    for module in MODULES:
        if (found := importlib.util.find_spec(module)) and found.origin:
            origin = Path(found.origin)
            whole = origin.parent if origin.name == "__init__.py" else origin
            (site / whole.name).symlink_to(whole)
    return python


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: the daemon mounts a tmpfs for each grant")
def test_what_is_installed_gives_a_process_its_portion(installed: Path, tmp_path: Path) -> None:
    """The daemon, `exec`, the binding and the libraries of a fresh installation hold a process to 1 GB."""
    command = installed.with_name("gpuportion")
    version = subprocess.run([command, "--version"], capture_output=True, text=True, check=True, cwd="/")
    (built,) = re.findall(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(), re.M)
    assert version.stdout.split()[-1] == built
    daemon = Daemon(tmp_path)
    daemon.python = str(installed)
    with daemon:
        done = subprocess.run(
            [command, "exec", "--gpu-memory", "1G", "--", str(installed), "-c", MEMORY],
            env=daemon.env,
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
        )
        assert (done.stdout, done.returncode) == ("953\n", 0), done.stderr
