"""Runs what is cross-built for aarch64, by qemu-user: with GPUPORTION_TEST_ARCH=aarch64, tests/support/native.py
builds for it, and each program is reached through a small static one of this machine's, which starts it in qemu.

So whoever starts programs needs not know. qemu 7.2 says that it wipes memory in a forked child, and does not:
tests of forks mean nothing there. Knows nothing of what is tested.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
TOOLCHAIN: Final = ROOT / "tools" / "aarch64.cmake"
TOOLS: Final = "aarch64-linux-gnu-"
COMPILER: Final = f"{TOOLS}gcc"
QEMU: Final = "qemu-aarch64-static"
SYSROOT: Final = "/usr/aarch64-linux-gnu"
SPACE: Final = "0x800000000"
"""32 GiB of addresses: qemu keeps a record of each page that is reserved, and the simulated driver reserves all that
it can get, down to 16 GiB."""

# Static: what LD_PRELOAD names is for the emulated program. It starts NAME for NAME.emulated.
STARTER: Final = r"""
#include <string.h>
#include <unistd.h>
int main(int n, char **words) {
    static char program[4096];
    char *all[64] = {"qemu", "-L", SYSROOT, "-R", SPACE, "-0", words[0], program};
    long size = readlink("/proc/self/exe", program, sizeof program - 1) - (long)strlen(".emulated");
    if (size <= 0 || n > 54)
        return 127;
    program[size] = 0;
    memcpy(all + 8, words + 1, sizeof *words * (size_t)n);
    execv(QEMU, all);
    return 127;
}
"""


def wanted() -> bool:
    """Are programs to be of the other architecture?"""
    return os.environ.get("GPUPORTION_TEST_ARCH") == "aarch64"


def missing() -> str:
    """What this machine lacks for it; empty: nothing."""
    if os.uname().machine != "x86_64":
        return "an x86-64 machine: aarch64 is the other architecture"
    lacking = [name for name in (COMPILER, QEMU) if shutil.which(name) is None]
    if not Path(SYSROOT, "lib", "libc.so.6").exists():
        lacking.append("libc6-dev-arm64-cross")
    return " and ".join(lacking)


def settings() -> tuple[str, ...]:
    """What CMake is told."""
    return ("--toolchain", str(TOOLCHAIN)) if wanted() else ()


def runnable(program: Path) -> Path:
    """`program`, or what starts it; a library is left as it is."""
    if not wanted() or not os.access(program, os.X_OK):
        return program
    starter = Path(f"{program}.emulated")
    if not starter.exists():
        names = [f'-DQEMU="{shutil.which(QEMU)}"', f'-DSYSROOT="{SYSROOT}"', f'-DSPACE="{SPACE}"']
        made = Path(f"{starter}.{os.getpid()}")
        command = ["gcc", "-O1", "-static", "-xc", "-", *names, "-o", str(made)]
        subprocess.run(command, input=STARTER, text=True, check=True)
        made.replace(starter)
    return starter
