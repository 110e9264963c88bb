"""One file for every image: the library under an old glibc, a new one, and musl, by real loaders of theirs."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.native import capped, debian, nvidia_driver, ubuntu
from tests.native.debian import UnavailableError, one

# No C library's start code: the same program for all of them, needing what it is linked with and nothing else.
PROGRAM = r"""
int cuDriverGetVersion(int *version);
static long call(long n, long a, long b, long c) {
    long r;
    __asm__ volatile("syscall" : "=a"(r) : "a"(n), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
    return r;
}
__attribute__((force_align_arg_pointer)) void _start(void) {
    char text[] = "alive 0000000\n";
    int version = 0;
    if (DRIVER && cuDriverGetVersion(&version))
        version = -1;
    for (int i = 12, n = version; i > 5 && n > 0; i--, n /= 10)
        text[i] = '0' + n % 10;
    call(1, 1, (long)text, sizeof text - 1);
    call(60, version < 0, 0, 0);
}
"""
GLIBC = {
    "2.23": (ubuntu.unpacked, "xenial"),
    "2.27": (ubuntu.unpacked, "bionic"),
    "2.31": (debian.unpacked, "bullseye"),
    "2.36": (debian.unpacked, "bookworm"),
    "2.41": (debian.unpacked, "trixie"),
    "2.43": (ubuntu.unpacked, "resolute"),
}


def _or_skip(fetch: Callable[..., Path], name: str, suite: str, *packages: str) -> Path:
    try:
        return fetch(name, suite, "main", *packages)
    except UnavailableError as why:
        pytest.skip(f"needs {packages[0]} of {suite}: {why}")


def _build(folder: Path, loader: Path, *libraries: Path, driver: bool) -> Path:
    program, source = folder / "program", folder / "program.c"
    source.write_text(PROGRAM)
    flags = ["-O1", "-nostdlib", "-ffreestanding", "-fno-stack-protector", f"-DDRIVER={int(driver)}"]
    links = ["-Wl,--no-as-needed", "-Wl,--allow-shlib-undefined", f"-Wl,--dynamic-linker={loader}"]
    # Where the driver is not called its symbol is not needed either.
    missing = [] if driver else ["-Wl,--unresolved-symbols=ignore-all"]
    command = ["gcc", *flags, *missing, "-o", str(program), str(source), *map(str, libraries), *links]
    subprocess.run(command, check=True)
    return program


@pytest.mark.parametrize("version", GLIBC)
def test_a_direct_link_works_without_libdl(tmp_path: Path, version: str) -> None:
    """Before glibc 2.34 nothing has loaded libdl when the library must open the driver: libc's own entry serves."""
    fetch, suite = GLIBC[version]
    root = _or_skip(fetch, f"glibc-{version}", suite, "libc6")
    try:
        driver = nvidia_driver.driver(535)
    except UnavailableError as why:
        pytest.skip(f"needs a driver for every glibc, NVIDIA's own: {why}")
    grant = capped.make_grant(tmp_path, str(driver.libcuda), str(driver.libnvml), ["00" * 16 + ":1:0"])
    program = _build(tmp_path, one(root, "**/ld-*.so*"), grant.libcuda, driver=True)
    folder = one(root, "**/libc[.-]*so*").parent
    env = {"LD_LIBRARY_PATH": f"{folder}:{grant.folder}", "LD_PRELOAD": f"{grant.libcuda}:{grant.libnvml}"}
    done = subprocess.run([program], env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "alive 0012020\n", "")


def test_it_loads_harmlessly_under_musl(tmp_path: Path) -> None:
    """The same files in an image without glibc: every process there has them preloaded, too."""
    root = _or_skip(debian.unpacked, "musl", "bookworm", "musl", "musl-dev")
    libc = one(root, "**/libc.so")
    program = _build(tmp_path, libc, libc, driver=False)
    names = {"cap_mem": "libcuda.so.1", "cap_nvml": "libnvidia-ml.so.1", "cap_alias": "libcuda.so"}
    for target, name in names.items():
        shutil.copy(capped.library(target), tmp_path / name)
    env = {"LD_PRELOAD": ":".join(str(tmp_path / name) for name in names.values())}
    done = subprocess.run([program], env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "alive 0000000\n", "")
