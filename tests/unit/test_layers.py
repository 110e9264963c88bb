"""Who may import whom. The tables are the architecture; this test keeps them true."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).parents[2]

MAY_IMPORT = {  # folder -> other parts of gpuportion it may import ("": the ground floor)
    "": set[str](),
    "shim": {""},
    "hooks": {""},
    "simgpu": {""},
    "allocator": {"", "shim", "hooks"},
    "cli": {"", "shim", "hooks", "allocator", "simgpu"},
}
ONLY_HERE = {  # outside package, or the binding -> the one module, or package, that may import it
    "pynvml": "allocator/nvml/",
    "yaml": "allocator/yaml_text.py",
    "orjson": "allocator/fast_json.py",
    "sqlite3": "allocator/store.py",
    "grpc": "allocator/dra.py",
    "tomllib": "shim/engines/toml_text.py",
    "tomli": "shim/engines/toml_text.py",
    "gpuportion._region": "allocator/pages.py",
}
PURE = {  # modules of values -> the modules of gpuportion that they may know, besides each other
    "allocator/mig": {
        "modules": {
            "profiles",
            "geometry",
            "asks",
            "fragmentation",
            "instances",
            "possible",
            "planner",
            "refusals",
            "portion",
            "seen",
            "modes",
            "capabilities",
        },
        "may_import": {"allocator.devices", "errors", "shim.request", "sizes"},
    },
}
STDLIB_ONLY = {"", "shim", "hooks", "simgpu", "cli"}

SOURCES = [  # the real folders: rglob does not follow the symlinks in src/gpuportion
    pytest.param(path, folder, id=str(path.relative_to(REPO)))
    for folder in MAY_IMPORT
    for path in sorted((REPO / (folder or "src/gpuportion")).rglob("*.py"))
]


def imports(path: Path) -> set[str]:
    """Dotted names of what a file imports, wherever in it; `from a import b` gives a and a.b."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None and node.level == 0, f"{path}: relative imports hide the layer"
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize(("path", "folder"), SOURCES)
def test_imports_follow_the_layers(path: Path, folder: str) -> None:
    """A part imports only the parts below it."""
    if path.name == "__main__.py":
        return  # an entry point starts a part; it belongs to none
    for name in imports(path):
        top, _, rest = name.partition(".")
        if top != "gpuportion" or not rest:
            continue
        target = rest.split(".")[0]
        target = target if target in MAY_IMPORT else ""
        assert target == folder or target in MAY_IMPORT[folder], f"{path.relative_to(REPO)} imports {name}"


@pytest.mark.parametrize(("path", "folder"), SOURCES)
def test_each_outside_library_has_one_importer(path: Path, folder: str) -> None:
    """What we take from outside can be exchanged by editing one file."""
    here = str(path.relative_to(REPO))
    for name in imports(path):
        for outside, only in ONLY_HERE.items():
            if name == outside or name.startswith(outside + "."):
                assert here == only or here.startswith(only), f"{here} imports {name}; only {only} may"
        top = name.partition(".")[0]
        known = top in sys.stdlib_module_names or top == "gpuportion" or top in ONLY_HERE
        assert known or folder not in STDLIB_ONLY, f"{here} imports {name}; this part is stdlib only"


@pytest.mark.parametrize("folder", PURE)
def test_planning_knows_values_alone(folder: str) -> None:
    """No driver, store, clock or file: what plans can be tried exhaustively."""
    dotted = folder.replace("/", ".")
    for module in PURE[folder]["modules"]:
        own = {name for name in imports(REPO / folder / f"{module}.py") if name.startswith("gpuportion.")}
        allowed = {f"gpuportion.{dotted}.{each}" for each in PURE[folder]["modules"]}
        allowed |= {f"gpuportion.{each}" for each in PURE[folder]["may_import"]}
        strange = {
            name for name in own if not any(name == each or name.startswith(f"{each}.") for each in allowed)
        }
        assert not strange, f"{folder}/{module}.py knows {', '.join(sorted(strange))}"
        assert not {"time", "os", "socket", "subprocess"} & imports(REPO / folder / f"{module}.py")
