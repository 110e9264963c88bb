"""What the two libraries export, need and cost at load: read from the files themselves.

`libcap_mem/symbols/classes.tsv` says of every symbol of the driver's interface what becomes of it, and why.
"""

from __future__ import annotations

import re
import subprocess
import sysconfig
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
ALLOWED = set((ROOT / "libcap_mem" / "symbols" / "libc.txt").read_text().split())
# May be missing.
WEAK = {"dlopen", "dlsym", "__libc_dlopen_mode", "__libc_dlsym"}
# Data of the debugger's interface, and where the driver stops for one: it looks them up in the process by name, and
# must find the driver's own.
NEVER_EXPORTED = re.compile(r"^cudbg(?!Api(Attach|Detach|Init)$|GetAPI(Version)?$|Main$)")
UNEXPORTED = ("data", "breakpoint")

# Declared in headers, and in no driver for Linux: of Windows, of Tegra.
ELSEWHERE = {"cuWGLGetDevice", "cuEventCreateFromEGLSync"}


def _output(*command: str | Path) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _symbols(target: str) -> list[str]:
    return (ROOT / "libcap_mem" / "symbols" / f"{LIBRARIES[target][1]}.txt").read_text().split()


def _hooked(target: str) -> set[str]:
    return set(re.findall(r"^HOOK\((\w+),", (ROOT / "libcap_mem" / LIBRARIES[target][2]).read_text(), re.M))


def classes() -> dict[str, list[str]]:
    """By symbol: its class, where it is found, and why, as far as there is a reason to give."""
    lines = (ROOT / "libcap_mem" / "symbols" / "classes.tsv").read_text().splitlines()
    rows = [line.split("\t") for line in lines if not line.startswith("#")]
    assert len({row[0] for row in rows}) == len(rows), "a symbol stands twice in classes.tsv"
    return {row[0]: row[1:] for row in rows}


def unclassified(found: set[str]) -> list[str]:
    """Of these symbols, those that nobody has thought about."""
    return sorted(found - set(classes()))


def _base(symbol: str) -> str:
    return re.sub(r"(_v\d+)?(_pt[sd][sz])?$", "", symbol)


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


def test_every_symbol_is_classified() -> None:
    """Each export is in the table with its class; what has to do with memory and isn't hooked, with a reason."""
    table, exported, hooked = classes(), set(_symbols("cap_mem")), _hooked("cap_mem")
    assert unclassified(exported) == []
    assert {symbol for symbol, row in table.items() if row[0] not in UNEXPORTED} == exported
    assert {symbol for symbol, row in table.items() if row[0] == "hooked"} == hooked
    for symbol, (of, *rest) in table.items():
        assert of in ("hooked", "forwarded", "exempt", *UNEXPORTED), symbol
        assert len(rest) == (2 if of in ("exempt", *UNEXPORTED) else 1), (
            f"{symbol} is {of}: with a reason, or without"
        )
        assert (of in UNEXPORTED) == bool(NEVER_EXPORTED.match(symbol)), symbol


def test_a_hooked_function_is_hooked_in_every_interface() -> None:
    """_v2 and on, per thread: none of a function that has a body is forwarded."""
    bases = {_base(symbol) for symbol in _hooked("cap_mem")}
    gaps = [s for s, row in classes().items() if _base(s) in bases and row[0] != "hooked"]
    assert gaps == []


def test_nothing_whose_name_speaks_of_memory_is_forwarded_unseen() -> None:
    """A name that allocates, frees, imports or reports memory is hooked, or exempt for a reason."""
    speaks = re.compile(
        r"^cu(Mem(?!cpy|set|BatchDecompress)|IpcOpen|Import|Export|Graphics|GL|EGL|VDPAU|(Mipmapped)?Array(Create|Destroy)"
        r"|(Module|Library)Load|CtxCreate|\w*(Alloc|Mempool|MemPool|Multicast|GreenCtxCreate|PrimaryCtx))"
    )
    loose = [s for s, row in classes().items() if speaks.match(s) and row[0] == "forwarded"]
    assert [s for s in loose if s != "cuTensorMapSetAllocationClass"] == []


def test_nothing_of_nvml_that_speaks_of_use_is_forwarded_unseen() -> None:
    """A name that speaks of memory, processes or use is hooked, or exempt for a reason."""
    speaks = re.compile(
        r"Memory|MemSize|FbUsage|BAR1|Process|Pids|Accounting|Utili[sz]ation|Sessions|Samples"
    )
    lines = (ROOT / "libcap_mem" / "symbols" / "nvml_exempt.tsv").read_text().splitlines()
    reasons = dict(line.split("\t") for line in lines if not line.startswith("#"))
    loose = {symbol for symbol in _symbols("cap_nvml") if speaks.search(symbol)} - _hooked("cap_nvml")
    assert loose == set(reasons)
    assert all(reasons.values())


def declared(header: Path) -> set[str]:
    """The functions of a cuda.h: those declared, what macros make of them, and their per-thread twins."""
    text = header.read_text(encoding="utf-8", errors="replace")
    names = set(re.findall(r"CUDAAPI\s+(cu[A-Z]\w+)\s*\(", text))
    names |= set(re.findall(r"^\s*#\s*define\s+cu[A-Z]\w+\s+(cu[A-Z]\w+)\s*$", text, re.M))
    for kind, symbol in re.findall(r"__CUDA_API_(PTDS|PTSZ)\((cu\w+)\)", text):
        names |= {symbol, f"{symbol}_{kind.lower()}"}
    return {name for name in names if not name.endswith("_params")}


def test_every_function_of_the_headers_at_hand_is_classified() -> None:
    """Of the CUDA that the test clients bring, which may be newer than the table."""
    folders = {path.parent for path in Path(sysconfig.get_path("purelib")).glob("nvidia/**/include/cuda.h")}
    if not folders:
        pytest.skip("needs a cuda.h: pip install nvidia-cuda-runtime")
    for folder in folders:
        found = {name for header in folder.glob("cuda*.h") for name in declared(header)} - ELSEWHERE
        assert len(found) > 500
        assert unclassified(found) == [], (
            f"not in libcap_mem/symbols/classes.tsv; the headers in {folder} have them"
        )


def test_nothing_is_exported_that_a_debugger_must_find_in_the_driver() -> None:
    """See NEVER_EXPORTED."""
    assert [s for s in _symbols("cap_mem") if NEVER_EXPORTED.match(s)] == []


def test_only_libc_is_needed(target: str) -> None:
    """A NEEDED library that a minimal image lacks would end every process in it."""
    dynamic = _output("readelf", "-dW", capped.library(target))
    assert re.findall(r"NEEDED.*\[(.*)\]", dynamic) == ["libc.so.6"]
    assert re.findall(r"SONAME.*\[(.*)\]", dynamic) == [LIBRARIES[target][0]]
    assert not re.search(r"\((INIT|FINI|INIT_ARRAY|PREINIT_ARRAY|FINI_ARRAY|TEXTREL)\)", dynamic)


def test_no_version_of_glibc_is_asked_for(target: str) -> None:
    """Nor anything that glibc 2.17 or musl lacks."""
    for line in _output("objdump", "-T", capped.library(target)).splitlines():
        if "*UND*" not in line:
            continue
        name = line.split()[-1]
        assert name in (WEAK if " w " in line else ALLOWED), line
        assert "GLIBC_" not in line


def test_the_library_is_small(target: str, tmp_path: Path) -> None:
    """Every process of a container maps it."""
    stripped = tmp_path / "stripped.so"
    strip = f"{emulation.TOOLS}strip" if emulation.wanted() else "strip"
    subprocess.run([strip, "-o", stripped, capped.library(target)], check=True)
    assert stripped.stat().st_size < 300_000
