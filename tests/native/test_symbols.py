"""What the two libraries export, need and cost at load: read from the files themselves."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.native import capped
from tests.support import emulation
from tests.support.native import ROOT

LIBRARIES = {
    "cap_mem": ("libcuda.so.1", "cuda", "hooks.def"),
    "cap_nvml": ("libnvidia-ml.so.1", "nvml", "nvml.def"),
}

# What both glibc from 2.17 and musl have.
ALLOWED = {
    "__errno_location", "clock_gettime", "close", "fcntl", "fstat", "lseek", "madvise", "memcmp", "memcpy",
    "memmove", "memset", "mmap", "munmap", "open", "strchr", "strcmp", "strlen", "strncmp", "strrchr", "syscall",
}  # fmt: skip
# May be missing.
WEAK = {"dlopen", "dlsym", "__libc_dlopen_mode", "__libc_dlsym"}
# Data of the debugger's interface: a debugger looks it up in the process by name, and must find the driver's own.
NEVER_EXPORTED = re.compile(
    r"^cudbg(?!Api(Attach|Detach|Init)$|GetAPI(Version)?$|Main$|ReportDriver(Api|Internal)Error$)"
)


def _output(*command: str | Path) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _symbols(target: str) -> list[str]:
    return (ROOT / "libcap_mem" / "symbols" / f"{LIBRARIES[target][1]}.txt").read_text().split()


def _hooked(target: str) -> set[str]:
    return set(re.findall(r"^HOOK\((\w+),", (ROOT / "libcap_mem" / LIBRARIES[target][2]).read_text(), re.M))


@pytest.fixture(params=LIBRARIES)
def target(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_every_symbol_is_exported_and_none_else(target: str) -> None:
    """The list of symbols is the list of exports."""
    lines = _output("nm", "-D", "--defined-only", capped.library(target)).splitlines()
    exported = [line.split()[-1] for line in lines]
    assert sorted(exported) == sorted(_symbols(target))
    assert {line.split()[-2] for line in lines} == {"T"}


def test_every_symbol_is_hooked_or_forwarded(target: str) -> None:
    """A hooked one has a body apart from its forwarder; any other is its forwarder."""
    where: dict[str, str] = {}
    for line in _output("nm", capped.library(target)).splitlines():
        *address, _, name = line.split()
        where[name] = address[0] if address else ""
    for symbol in _symbols(target):
        is_forwarder = where[symbol] == where[f"real_{symbol}"]
        assert is_forwarder == (symbol not in _hooked(target)), symbol


def test_no_data_of_the_debugger_is_exported() -> None:
    """See NEVER_EXPORTED."""
    assert [s for s in _symbols("cap_mem") if NEVER_EXPORTED.match(s)] == []


def test_only_libc_is_needed(target: str) -> None:
    """A NEEDED library that a minimal image lacks would end every process in it."""
    dynamic = _output("readelf", "-dW", capped.library(target))
    assert re.findall(r"NEEDED.*\[(.*)\]", dynamic) == ["libc.so.6"]
    assert re.findall(r"SONAME.*\[(.*)\]", dynamic) == [LIBRARIES[target][0]]
    assert not re.search(r"\((INIT|FINI|INIT_ARRAY|PREINIT_ARRAY|FINI_ARRAY|TEXTREL)\)", dynamic)


def test_nothing_newer_than_glibc_2_17_is_asked_for(target: str) -> None:
    """And nothing that musl lacks."""
    for line in _output("objdump", "-T", capped.library(target)).splitlines():
        if "*UND*" not in line:
            continue
        name = line.split()[-1]
        assert name in (WEAK if " w " in line else ALLOWED), line
        version = re.search(r"GLIBC_(\d+)\.(\d+)", line)
        assert version is None or (int(version[1]), int(version[2])) <= (2, 17), line


def test_the_library_is_small(target: str, tmp_path: Path) -> None:
    """Every process of a container maps it."""
    stripped = tmp_path / "stripped.so"
    strip = f"{emulation.TOOLS}strip" if emulation.wanted() else "strip"
    subprocess.run([strip, "-o", stripped, capped.library(target)], check=True)
    assert stripped.stat().st_size < 300_000
