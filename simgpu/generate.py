"""Makes the export surfaces of the simulated libraries. CMake runs it at build time.

    generate.py cuda driver_api.tsv OUT.c SOURCE.c...    rows for cuGetProcAddress, and what no source defines
    generate.py nvml nvml_names.txt OUT.c SOURCE.c...    what no source defines

A function is implemented where a source has `API(name, ...)` at the start of a line. A per-thread variant
(`_ptsz`, `_ptds`) of an implemented function becomes a jump to it: all of the simulated driver's work is done
when a call returns, so the two do the same, but have addresses of their own as in the real library. Anything
else answers "not supported".
"""

from __future__ import annotations

import re
import sys

HEAD = "// Made by simgpu/generate.py; edit that, or its table."
JUMP = r"""
#if defined(__x86_64__)
#define GO "jmp "
#elif defined(__aarch64__)
#define GO "b "
#endif
#define TEXT(name) ".text\n.globl " #name "\n.type " #name ",%function\n.p2align 4\n" #name ":\n"
#define JUMP(name, target) __asm__(TEXT(name) GO #target "\n.size " #name ", . - " #name "\n")
"""
CUDA_STUB = """
int not_supported(const char *name, const void *caller) __attribute__((visibility("hidden")));
#define EXPORTED __attribute__((visibility("default"))) int
#define STUB(name) EXPORTED name(void) { return not_supported(#name, __builtin_return_address(0)); }
#pragma GCC diagnostic ignored "-Wmissing-prototypes"
"""
NVML_STUB = """
#define NOT_SUPPORTED 3
#define EXPORTED __attribute__((visibility("default"))) int
#define STUB(name) EXPORTED name(void) { return NOT_SUPPORTED; }
#pragma GCC diagnostic ignored "-Wmissing-prototypes"
"""
MODES = {"legacy": "MODE_LEGACY", "thread": "MODE_THREAD"}


def rows(path: str) -> list[list[str]]:
    """The tab-separated rows of a table, without its comments."""
    with open(path) as table:
        return [line.rstrip("\n").split("\t") for line in table if line.strip() and not line.startswith("#")]


def implemented(sources: list[str]) -> set[str]:
    names: set[str] = set()
    for source in sources:
        with open(source) as text:
            names |= set(re.findall(r"^(?:API\(|const char \*)(\w+)", text.read(), re.MULTILINE))
    return names


def plain(symbol: str) -> str:
    """The function that a per-thread variant is a variant of."""
    return re.sub(r"_pt[ds][sz]$", "", symbol)


def exports(symbols: list[str], have: set[str]) -> list[str]:
    """A line for each symbol that no source defines."""
    unknown = have - set(symbols)
    if unknown:
        raise SystemExit(f"implemented, but in no table: {', '.join(sorted(unknown))}")
    todo = [symbol for symbol in symbols if symbol not in have]
    return [f"JUMP({s}, {plain(s)});" if plain(s) in have else f"STUB({s})" for s in todo]


def cuda(table: list[list[str]], have: set[str]) -> list[str]:
    symbols = sorted({symbol for _, _, _, symbol in table})
    listed = sorted((base, mode, int(start), symbol) for base, mode, start, symbol in table if mode in MODES)
    lines = [HEAD, '#include "entries.h"', JUMP, CUDA_STUB, *exports(symbols, have)]
    lines += [f'extern char at_{s}[] __asm__("{s}");' for s in symbols]
    lines += ["const struct entry entries[] = {"]
    lines += [
        f'    {{"{base}", {MODES[mode]}, {start}, at_{symbol}}},' for base, mode, start, symbol in listed
    ]
    lines += ["};", "const unsigned entry_count = sizeof entries / sizeof *entries;"]
    return lines


def nvml(table: list[list[str]], have: set[str]) -> list[str]:
    return [HEAD, NVML_STUB, *exports(sorted({name for (name,) in table}), have)]


def main(which: str, table: str, out: str, *sources: str) -> None:
    make = {"cuda": cuda, "nvml": nvml}[which]
    with open(out, "w") as file:
        file.write("\n".join(make(rows(table), implemented(list(sources)))) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
