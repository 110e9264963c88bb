"""Builds the wheels: this machine's, and on x86-64 the one for aarch64 by cross build.

    python tools/wheels.py --out dist [--work build/wheels] [x86_64] [aarch64]

A wheel's platform tag says the oldest glibc that its files run on: it is read from the files. The libraries that are
brought into containers ask for glibc 2.17 whatever the tag says (tests/native/test_symbols.py); the programs ask for
none. Knows nothing of what is in them, but that it is ELF.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
TOOLCHAINS: Final = {("x86_64", "aarch64"): ROOT / "tools" / "aarch64.cmake"}
"""By what builds, and for what."""
OLDEST: Final = (2, 17)
"""manylinux is not counted from anything older."""


def build(architecture: str, work: Path) -> Path:
    """The wheel as the build backend makes it, in a folder of `work` of its own."""
    here = os.uname().machine
    toolchain = TOOLCHAINS.get((here, architecture))
    if toolchain is None and architecture != here:
        raise SystemExit(f"wheels: this machine ({here}) cannot build for {architecture}.")
    settings = [f"--config-settings=build-dir={work / architecture}"]
    if toolchain:
        settings.append(f"--config-settings=cmake.args=--toolchain={toolchain}")
    folder = Path(tempfile.mkdtemp(dir=work))
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        *settings,
    ]
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "_PYTHON_HOST_PLATFORM": f"linux-{architecture}",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }
    subprocess.run([*command, "--wheel-dir", str(folder), str(ROOT)], env=environment, check=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def glibc_of(elf: bytes) -> tuple[int, int]:
    """The newest version of glibc that a file's symbols ask for; (0, 0): it asks for none."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(elf)
        file.flush()
        told = subprocess.run(["readelf", "-VW", file.name], capture_output=True, text=True, check=True)
    found = re.findall(r"\bGLIBC_(\d+)\.(\d+)", told.stdout)
    return max(((int(major), int(minor)) for major, minor in found), default=(0, 0))


def elves(wheel: Path) -> dict[str, bytes]:
    """Every ELF file in it, by name."""
    with zipfile.ZipFile(wheel) as file:
        read = {name: file.read(name) for name in file.namelist()}
    return {name: data for name, data in read.items() if data.startswith(b"\x7fELF")}


def tagged(wheel: Path, architecture: str) -> Path:
    """The same wheel, with the tag of the oldest glibc that all of it runs on."""
    major, minor = max(OLDEST, *(glibc_of(data) for data in elves(wheel).values()))
    tag = f"manylinux_{major}_{minor}_{architecture}"
    command = [sys.executable, "-m", "wheel", "tags", "--remove", "--platform-tag", tag, str(wheel)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return wheel.with_name(done.stdout.split()[-1])


def make(architectures: list[str], out: Path, work: Path) -> list[Path]:
    """The wheels in `out`; those of this project that lay there are gone. What is built stays in `work`."""
    work.mkdir(parents=True, exist_ok=True)
    out.mkdir(parents=True, exist_ok=True)
    made = []
    for architecture in architectures:
        wheel = tagged(build(architecture, work), architecture)
        for old in out.glob(f"gpuportion-*_{architecture}.whl"):
            old.unlink()
        made.append(Path(shutil.move(wheel, out / wheel.name)))
        wheel.parent.rmdir()
    return made


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    here = os.uname().machine
    possible = [here, *(target for builder, target in TOOLCHAINS if builder == here)]
    parser.add_argument("architectures", nargs="*", default=possible, metavar="ARCHITECTURE")
    parser.add_argument("--out", type=Path, default=ROOT / "dist")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "wheels")
    args = parser.parse_args()
    for wheel in make(args.architectures, args.out.resolve(), args.work.resolve()):
        print(wheel)


if __name__ == "__main__":
    main()
