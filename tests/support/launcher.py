"""A bundle, a launcher and, instead of runc, a program that writes down how it was started."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from gpuportion import wire
from tests.support import native

RECORDER: Final = """#!{python} -ISE
import ctypes, json, os
death = ctypes.c_int()
ctypes.CDLL(None).prctl(2, ctypes.byref(death), 0, 0, 0)
proc = "/proc/self"
open_fds = [f"{{proc}}/fd/{{fd}}" for fd in os.listdir(f"{{proc}}/fd")]
fds = {{os.path.basename(fd): os.readlink(fd) for fd in open_fds if os.path.lexists(fd)}}
lines = open(f"{{proc}}/status").read().splitlines()
status = dict(line.split(":\\t", 1) for line in lines if ":\\t" in line)
seen = dict(
    argv=open(f"{{proc}}/cmdline").read().split("\\0")[2:-1],
    env=dict(os.environ),
    fds=fds,
    pdeathsig=death.value,
    blocked=status["SigBlk"],
    ignored=status["SigIgn"],
    cwd=os.getcwd(),
    pid=os.getpid(),
)
with open("{out}", "w") as out:
    json.dump(seen, out)
"""
DOCKER_REWORDS: Final = ("permission denied", "no such file or directory", "executable file not found")
"""Phrases by which docker picks another exit code."""
REQUEST: Final = "GPU_MEMORY_LIMIT=4G"


def config(*env: str, root: str = "rootfs", **more: Any) -> dict[str, Any]:
    return {"ociVersion": "1.0.2", "process": {"env": ["PATH=/bin", *env]}, "root": {"path": root}, **more}


class Launcher:
    """`folder` holds bundle, run directory and the recorder's file; `target` is which build is run."""

    def __init__(self, folder: Path, target: str, runtime: str = "runc") -> None:
        self.program = native.built(target, "shim")
        self.bundle = folder / "bundle"
        self.config = self.bundle / "config.json"
        self.rootfs = self.bundle / "rootfs"
        self.run_dir = folder / "run"
        self.log = folder / "log.json"
        self.runtime = folder / runtime
        self._recorded = folder / "recorded.json"
        (self.rootfs / "etc").mkdir(parents=True)
        self.runtime.write_text(RECORDER.format(python=sys.executable, out=self._recorded))
        self.runtime.chmod(0o755)
        self.env = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "GPUPORTION_RUNTIME": str(self.runtime),
            "GPUPORTION_RUN_DIR": str(self.run_dir),
            **(native.SANITIZER_ENV if "sanitized" in target else {}),
        }

    def write(self, value: dict[str, Any] | str) -> bytes:
        """The config.json's bytes, as they now stand there."""
        self.config.write_text(value if isinstance(value, str) else json.dumps(value))
        return self.config.read_bytes()

    def run(
        self, *words: str, env: Mapping[str, str] | None = None, **options: Any
    ) -> subprocess.CompletedProcess[bytes]:
        self._recorded.unlink(missing_ok=True)
        options = {"stdin": subprocess.DEVNULL, "capture_output": True, "cwd": self.bundle, **options}
        return subprocess.run(
            [self.program, *words], env={**self.env, **(env or {})}, timeout=100, check=False, **options
        )

    def create(
        self, *before: str, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        return self.run(
            "--log", str(self.log), *before, "create", "--bundle", str(self.bundle), "c1", env=env
        )

    def recorded(self) -> dict[str, Any] | None:
        """How the runtime was started; None if it was not."""
        return json.loads(self._recorded.read_text()) if self._recorded.exists() else None

    def logged(self) -> list[dict[str, str]]:
        return [json.loads(line) for line in self.log.read_text().removesuffix("\n").split("\n")]

    def leftovers(self) -> Sequence[str]:
        return sorted(set(os.listdir(self.bundle)) - {"config.json", "rootfs"})


EDITED: Final = json.dumps(config("EDITED=1")).encode()


def edit_it(_: wire.Message) -> wire.Message:
    return wire.Message({}, EDITED)


def refused_with(launcher: Launcher, result: subprocess.CompletedProcess[bytes]) -> str:
    """The one refusal, which stands in the log and on stderr and nowhere else."""
    assert result.returncode == 1
    assert result.stdout == b""
    assert launcher.recorded() is None
    assert launcher.leftovers() == []
    text = result.stderr.decode().removesuffix("\n")
    if launcher.log.exists():
        assert launcher.logged()[-1]["msg"] == text
        assert launcher.logged()[-1]["level"] == "error"
    assert not any(phrase in text.lower() for phrase in DOCKER_REWORDS)
    return text
