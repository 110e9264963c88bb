"""Makes what the stand-in runtime takes from NVIDIA's headers and library. CMake runs it.

generate.py errors driver_types.h OUT.h                    the names of the error numbers
generate.py rest NM LIBRARY OUT.c OUT.map OBJECT...        what LIBRARY exports and no OBJECT defines; the version
                                                           node that all exported names have
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

HEAD = "// Made by tests/cudart/generate.py.\n"
STUB = '__attribute__((visibility("default"))) int {name}(void) {{ return 801 /* not supported */; }}\n'


def errors(header: str, out: str) -> None:
    """A line for each value of enum cudaError."""
    values = re.findall(
        r"^\s*(cuda(?:Success|Error\w+))\s*=\s*(0x[0-9a-f]+|\d+)",
        Path(header).read_text("latin-1"),
        re.MULTILINE,
    )
    by_number = {int(number, 0): name for name, number in values}
    lines = [f"ERROR({number}, {name})\n" for number, name in sorted(by_number.items())]
    Path(out).write_text(HEAD + "".join(lines))


def defined(nm: str, files: Iterable[str], *flags: str) -> set[str]:
    """The functions that object files or libraries define."""
    listed = subprocess.run(
        [nm, "--defined-only", "--extern-only", *flags, *files], capture_output=True, text=True, check=True
    )
    return set(re.findall(r" T ((?:__)?cuda\w+)", listed.stdout))


def rest(nm: str, library: str, out: str, exports: str, *objects: str) -> None:
    """Stubs for what is not implemented, and the list of what is exported."""
    names, have = defined(nm, [library], "--dynamic"), defined(nm, objects)
    Path(out).write_text(HEAD + "".join(STUB.format(name=name) for name in sorted(names - have)))
    listed = "".join(f"    {name};\n" for name in sorted(names))
    Path(exports).write_text(f"{Path(library).name} {{\n  global:\n{listed}  local:\n    *;\n}};\n")


VERBS: dict[str, Callable[..., None]] = {"errors": errors, "rest": rest}

if __name__ == "__main__":
    VERBS[sys.argv[1]](*sys.argv[2:])
