"""Run in a process of its own, by path: asks a libcuda for everything that can be asked without a device; JSON.

    driver_answers.py LIBRARY REAL SYMBOLS BASES

LIBRARY: what to dlopen. REAL: the path of the real driver. SYMBOLS: a file of exported names. BASES: a file of names
for cuGetProcAddress. An address is answered as the symbol that REAL exports there; as "ours:" and the symbol where it
is LIBRARY's own and that is another library; or as "?".
"""

from __future__ import annotations

import ctypes
import json
import sys
from pathlib import Path
from typing import Any

VERSIONS = (2000, 3020, 4000, 6000, 7000, 8000, 9000, 10000, 10020, 11000, 11020, 11030, 11040, 12000, 12020, 12030,
            12040, 12050, 12080, 13000, 13010, 13020, 13030)  # fmt: skip


def exports(library: ctypes.CDLL, names: list[str], prefix: str) -> dict[int | None, str]:
    """Addresses to names. Of several names of one address the last in order stands."""
    return {
        ctypes.cast(getattr(library, name), ctypes.c_void_p).value: prefix + name
        for name in names
        if hasattr(library, name)
    }


def main() -> dict[str, Any]:
    """Everything, as one object."""
    library = ctypes.CDLL(sys.argv[1], mode=ctypes.RTLD_LOCAL)
    real = ctypes.CDLL(sys.argv[2], mode=ctypes.RTLD_LOCAL)
    names = Path(sys.argv[3]).read_text().split()
    bases = Path(sys.argv[4]).read_text().split()
    here = {**exports(library, names, "ours:"), **exports(real, names, "")}
    version = ctypes.c_int()
    answers: dict[str, Any] = {
        "version": [library.cuDriverGetVersion(ctypes.byref(version)), version.value],
        "init": library.cuInit(0),
        "lookup": {},
    }
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    answers["info"] = library.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total))
    look = library.cuGetProcAddress_v2
    for base in [*bases, "", "cuNoSuchFunction"]:
        for flags in (0, 1, 2):
            for asked in VERSIONS:
                found, status = ctypes.c_void_p(), ctypes.c_int(-1)
                rc = look(
                    base.encode(), ctypes.byref(found), asked, ctypes.c_uint64(flags), ctypes.byref(status)
                )
                symbol = here.get(found.value, "?") if found.value else None
                answers["lookup"][f"{base}/{flags}/{asked}"] = [rc, status.value, symbol]
    return answers


if __name__ == "__main__":
    json.dump(main(), sys.stdout)
