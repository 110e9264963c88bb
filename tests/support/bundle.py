"""An OCI bundle whose root filesystem is one static program, and a low-level runtime to run it with."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tests.support import later_engines, native

SYSTEM_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
KERNEL_MOUNTS: Final = (
    ("/proc", "proc", "proc", ()),
    ("/dev", "tmpfs", "tmpfs", ("nosuid", "strictatime", "mode=755", "size=65536k")),
    ("/dev/pts", "devpts", "devpts", ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620")),
)


HYBRID: Final = Path("/sys/fs/cgroup/unified")
WITHOUT_HYBRID: Final = (
    "unshare",
    "--mount",
    "sh",
    "-c",
    f'umount {HYBRID} && mount -t tmpfs none {HYBRID} && exec "$0" "$@"',
)
"""crun refuses hosts with cgroup v1 that have controllers in v2 as well; without sight of these it works. It then makes
plain folders there, in a file system that goes with the call: left in the host's, they use up its inodes."""


def hides_hybrid(runtime: str) -> tuple[str, ...]:
    """Words before a call of `runtime` that make it work on this host."""
    controllers = HYBRID / "cgroup.controllers"
    hybrid = controllers.exists() and controllers.read_text().strip() != ""
    return WITHOUT_HYBRID if hybrid and Path(runtime).name == "crun" else ()


def low_level(name: str) -> str | None:
    """Absolute path of runc or crun, None where it is not installed."""
    return shutil.which(name, path=f"{later_engines.folder() or ''}:{SYSTEM_PATH}")


def spec(*args: str, env: Sequence[str] = (), terminal: bool = False) -> dict[str, Any]:
    return {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": terminal,
            "user": {"uid": 0, "gid": 0},
            "args": ["/probe", *args],
            "env": ["PATH=/", *env],
            "cwd": "/",
        },
        "root": {"path": "rootfs"},
        "mounts": [
            {"destination": where, "type": kind, "source": source, "options": list(options)}
            for where, kind, source, options in KERNEL_MOUNTS
        ],
        "linux": {"namespaces": [{"type": kind} for kind in ("pid", "mount", "ipc", "uts", "network")]},
    }


class Bundle:
    """`folder` gets the bundle and the runtime's state; containers in it are called by `call`."""

    def __init__(self, folder: Path, before: tuple[str, ...] = ()) -> None:
        self.before = before
        self.folder = folder / "bundle"
        self.config = self.folder / "config.json"
        self.root = folder / "state"
        for name in ("etc", "proc", "dev"):
            (self.folder / "rootfs" / name).mkdir(parents=True)
        shutil.copy(native.built("gpuportion-container-probe", "shim"), self.folder / "rootfs/probe")

    def write(self, value: Mapping[str, Any]) -> bytes:
        """The config.json's bytes, as they now stand there."""
        self.config.write_text(json.dumps(value))
        return self.config.read_bytes()

    def call(
        self, program: str, *words: str, env: Mapping[str, str] | None = None, **options: Any
    ) -> subprocess.CompletedProcess[bytes]:
        """One call of `program` as an engine makes it: --root first, in the bundle.

        What it writes goes to files: the container of a `create` keeps its stdout and stderr.
        """
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
            options = {"stdin": subprocess.DEVNULL, "stdout": out, "stderr": errors, **options}
            done = self._call([*self.before, program, "--root", str(self.root), *words], env, options)
            out.seek(0)
            errors.seek(0)
            return subprocess.CompletedProcess(done.args, done.returncode, out.read(), errors.read())

    def _call(
        self, command: Sequence[str], env: Mapping[str, str] | None, options: Mapping[str, Any]
    ) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            command,
            cwd=self.folder,
            env={"PATH": SYSTEM_PATH, "XDG_RUNTIME_DIR": str(self.root), **(env or {})},
            timeout=120,
            check=False,
            **options,
        )


def runs_containers() -> str | None:
    """Why no container can be run here, or None."""
    return None if os.geteuid() == 0 else "needs root: runs containers"
