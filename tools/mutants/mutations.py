"""Runs mutmut over the pure modules in a private copy, and tells which mutants the tests let live.

mutmut writes every mutant of a function into one file, beside the function, and forks a process for each that
runs only the tests that come through that function. It changes functions alone: tables at the top of a module
are not touched.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tools.mutants.private_tree import CopyError, Tree

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TABLE: Final = Path(__file__).with_name("modules.toml")
LOG: Final = "mutmut.log"
SLOW: Final = "timeout"
"""As mutmut calls a mutant whose tests did not end in time: it is killed, and might live on a quieter machine."""

CONFIG: Final = """
[tool.mutmut]
source_paths = ["src"]
only_mutate = {modules}
also_copy = {folders}
pytest_add_cli_args = ["-p", "no:cacheprovider"]
pytest_add_cli_args_test_selection = {tests}
timeout_constant = 0.5
timeout_multiplier = 6.0
use_git_change_detection = false
use_setproctitle = false
"""


@dataclass(frozen=True)
class Mutant:
    """`function`: dotted, as Python calls it. `old`, `new`: the lines that differ, without their indent."""

    name: str
    function: str
    status: str
    old: str
    new: str


def modules(table: Path = TABLE) -> dict[str, list[str]]:
    """Paths of all modules that are mutated, with their tests."""
    read = tomllib.loads(table.read_text())
    return {**read["modules"], **read.get("open", {})}


def is_open(function: str, table: Path = TABLE) -> bool:
    """Is it of a module whose survivors nobody has gone through yet?"""
    return any(function.startswith(dotted(path)) for path in tomllib.loads(table.read_text()).get("open", {}))


def dotted(path: str) -> str:
    """How the names of a module's functions begin."""
    return "gpuportion." + path.removesuffix(".py").replace("/", ".") + "."


def run(
    tree: Tree, *, tenths: int, seed: int, only: Sequence[str]
) -> tuple[Counter[str], list[Mutant], float]:
    """How many ended how, those that were not killed or SLOW, and seconds. CopyError where mutmut itself fails.

    `tenths` of the mutants are tried, chosen by `seed`; `only`: those whose names match one of these patterns.
    """
    began = time.monotonic()
    _configure(tree, _meant(only))
    shutil.rmtree(tree.at / "mutants", ignore_errors=True)
    patterns = list(only) or _share(tenths, seed)
    command = [str(tree.python), "-m", "mutmut", "run", "--max-children", str(os.cpu_count() or 2), *patterns]
    with (tree.at / LOG).open("wb") as log:
        done = subprocess.run(
            command,
            cwd=tree.at,
            env=tree.environment(),
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    if done.returncode:
        tail = (tree.at / LOG).read_text(errors="replace").replace("\r", "\n")[-3000:]
        raise CopyError(f"mutmut ended with {done.returncode}; the end of {tree.at / LOG}:\n{tail}")
    counts, alive = results(tree)
    return counts, alive, time.monotonic() - began


def _share(tenths: int, seed: int) -> list[str]:
    """Patterns for so many tenths of the mutants: by the last digit of their numbers. All of them: none."""
    if tenths >= 10:
        return []
    return [f"*__mutmut_*{digit}" for digit in sorted(random.Random(seed).sample(range(10), tenths))]


def _meant(only: Sequence[str]) -> dict[str, list[str]]:
    """The modules that patterns of names can mean; all of them where that cannot be told."""
    known = modules()
    meant = {path for path in known for pattern in only if pattern.startswith(dotted(path))}
    return {path: known[path] for path in known if path in meant or not meant}


def _configure(tree: Tree, chosen: dict[str, list[str]]) -> None:
    tests = sorted({f"tests/unit/{test}" for tests in chosen.values() for test in tests})
    config = CONFIG.format(
        modules=json.dumps([f"src/gpuportion/{module}" for module in chosen]),
        folders=json.dumps(["shim", "hooks", "allocator", "cli", "simgpu", "libcap_mem", "docs"]),
        tests=json.dumps(tests),
    )
    project = tree.at / "pyproject.toml"
    project.write_text(project.read_text() + config)


def results(tree: Tree) -> tuple[Counter[str], list[Mutant]]:
    """What mutmut has written down about the mutants that it tried: as `run` returns it."""
    counts: Counter[str] = Counter()
    alive = []
    for mutant in _tried(tree):
        counts[mutant.status] += 1
        if mutant.status not in ("killed", "segfault"):
            alive.append(mutant)
    return counts, alive


def _tried(tree: Tree) -> Iterator[Mutant]:
    from mutmut.stats import status_by_exit_code

    before = os.getcwd()
    os.chdir(tree.at)  # mutmut finds its files from there
    try:
        for meta in sorted(Path("mutants").rglob("*.py.meta")):
            path = meta.relative_to("mutants").with_suffix("")
            for name, code in json.loads(meta.read_text())["exit_code_by_key"].items():
                status = status_by_exit_code[code]
                if status != "not checked":
                    yield _mutant(name, status, path)
    finally:
        os.chdir(before)


def _mutant(name: str, status: str, path: Path) -> Mutant:
    from mutmut.mutation.diff_apply import get_diff_for_mutant

    old = new = ""
    if status != "killed":
        old, new = _changed(get_diff_for_mutant(name, path=path))
    return Mutant(name, _function(name), status, old, new)


def _changed(diff: Any) -> tuple[str, str]:
    lines = [line for line in str(diff).splitlines() if not line.startswith(("---", "+++"))]
    old, new = ("\n".join(line[1:].strip() for line in lines if line[:1] == sign) for sign in "-+")
    return old, new


def _function(name: str) -> str:
    """gpuportion.wire.xǁMessageǁread__mutmut_3 -> gpuportion.wire.Message.read; wire.x_sizes__mutmut_1 -> wire.sizes"""
    module, _, mangled = name.partition("__mutmut_")[0].rpartition(".")
    parts = mangled.split("ǁ")[1:] if "ǁ" in mangled else [mangled.removeprefix("x_")]
    return ".".join((module, *parts))
