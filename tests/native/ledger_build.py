"""Builds C programs around the ledger's own sources, as they stand or changed on purpose.

Direct calls of the compiler: the explorer wants the sources with a small table and a scheduler in every access, and
a seeded fault wants one of them altered, which no build target should offer.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.support import emulation

ROOT: Final = Path(__file__).parents[2]
LIBRARY: Final = ROOT / "libcap_mem"
REGION: Final = ("attach", "cell", "keeping", "ledger", "os", "pages", "policy", "total", "unseen")
COMPILER: Final = emulation.COMPILER if emulation.wanted() else os.environ.get("CC", "cc")
FLAGS: Final = ("-std=gnu11", "-Wall", "-Wextra", "-Werror", "-Wno-missing-field-initializers")


def compile_program(out: Path, sources: Sequence[Path], *flags: str) -> Path:
    """`out`, made of `sources` and the whole accounting."""
    region = [str(LIBRARY / "src" / f"{name}.c") for name in REGION]
    include = [f"-I{LIBRARY / 'include'}", f"-I{LIBRARY / 'src'}"]
    call(COMPILER, *FLAGS, "-O2", *flags, *include, *map(str, sources), *region, "-pthread", "-o", str(out))
    return emulation.runnable(out)


def call(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stderr}"


def have_compiler() -> bool:
    return shutil.which(COMPILER) is not None


@dataclass(frozen=True)
class Seed:
    """A fault: `old` stands once in `source` and becomes `new`; the explorer finds it with these arguments."""

    name: str
    source: str
    old: str
    new: str
    arguments: tuple[str, ...] = ("random", "7", "20000", "3000")


class Explorer:
    """The sources of the algorithm under the explorer's scheduler, with 4 cells of 2 lanes."""

    SMALL: Final = {
        "#define GP_CELLS 256": "#define GP_CELLS 4",
        "#define GP_LANES 8": "#define GP_LANES 2",
        "#define GP_KEPT_UNIT 4096": "#define GP_KEPT_UNIT 1",
    }
    STEP: Final = (
        "void explore_step(const char *access);\n#define GP_STEP(access) explore_step(access)\n"
        "#define GP_KEPT_MOST 2\n#define GP_KEPT_ROOM 0\n"
        "extern unsigned long explore_shut;\n#define GP_KEPT_SHUT explore_shut\n"
    )
    EXPLORED: Final = ("cell", "keeping", "ledger", "pages", "total", "unseen")

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for source in ("src", "include", "model"):
            for path in (LIBRARY / source).glob("*.[ch]"):
                shutil.copy(path, folder)
        layout = (folder / "region_layout.h").read_text()
        for old, new in self.SMALL.items():
            assert layout.count(old) == 1, f"region_layout.h has no {old!r} to make small"
            layout = layout.replace(old, new)
        (folder / "region_layout.h").write_text(layout)
        (folder / "step.h").write_text(self.STEP)
        for name in (*self.EXPLORED, "explore", "world"):
            self._compile(folder / f"{name}.c", folder / f"{name}.o")

    def _compile(self, source: Path, made: Path, *flags: str) -> None:
        small = ["-I", str(self.folder), "-include", str(self.folder / "step.h")]
        call(COMPILER, *FLAGS, "-O2", *flags, *small, "-c", str(source), "-o", str(made))

    def program(self, seed: Seed | None = None) -> Path:
        """The explorer of the sources as they stand, or with one fault."""
        objects = {name: self.folder / f"{name}.o" for name in (*self.EXPLORED, "explore", "world")}
        made = self.folder / "explorer"
        if seed:
            text = (self.folder / f"{seed.source}.c").read_text()
            assert text.count(seed.old) == 1, (
                f"{seed.name}: {seed.source}.c has it {text.count(seed.old)} times"
            )
            changed = self.folder / f"seeded-{seed.source}.c"
            changed.write_text(text.replace(seed.old, seed.new))
            objects[seed.source] = changed.with_suffix(".o")
            self._compile(changed, objects[seed.source], "-w")
            made = self.folder / "seeded-explorer"
        call(COMPILER, *map(str, objects.values()), "-o", str(made))
        return made


def run(program: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(program), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=250)
