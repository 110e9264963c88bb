"""Containers as runc or crun make them alone, with the launcher before it and a real daemon behind.

No engine: its calls are the test's own, so that a test can stop between any two of them, and put a hook of its
own before ours (`prestart` runs before `createRuntime`) or behind.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tests.support import engines, native
from tests.support.bundle import SYSTEM_PATH, Bundle, spec
from tests.support.daemon import Daemon

REQUEST: Final = "GPU_MEMORY_LIMIT=1G"
HOOK_ENV: Final = ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]
EDIT: Final = """#!{python} -IS
# Before {next}: changes config.json as the daemon has left it; then goes on.
import json, os, sys
if "create" in sys.argv or "run" in sys.argv:
    with open("config.json") as file:
        spec = json.load(file)
    {edit}
    with open("config.json", "w") as file:
        json.dump(spec, file)
os.execv({next!r}, [{next!r}, *sys.argv[1:]])
"""
OURS: Final = "spec['hooks']['createRuntime'][0]"


class Oci:
    """One low-level runtime with and without the launcher, in one bundle under one id."""

    def __init__(self, folder: Path, name: str, daemon: Daemon) -> None:
        self.folder, self.daemon, self.name = folder, daemon, name
        folder.mkdir()
        self.bundle = Bundle(folder)
        self.runtime = engines.low_level(folder, name)
        self.launcher = native.built("gpuportion-runtime", "shim")
        self.log = folder / "log.json"
        self.id = f"gpuportion-test-{uuid.uuid4().hex[:12]}"
        self.cgroup = f"/{self.id}"
        self.path = SYSTEM_PATH
        self.options: dict[str, Any] = {}
        """Of subprocess, for each call through the launcher: where a container's output goes, say."""

    # config.json

    def write(self, *args: str, request: str = REQUEST, **changes: Any) -> None:
        """A container that runs the probe; `changes` go into the spec, dicts into the dicts that are there."""
        value = spec(*(args or ("wait",)), env=[request] if request else [])
        value["linux"]["cgroupsPath"] = self.cgroup
        self.bundle.write(_merged(value, changes))

    def edited_by(self, edit: str) -> str:
        """A low-level runtime that first changes the `spec` that it got from us."""
        path = self.folder / f"edit/{self.name}"
        path.parent.mkdir(exist_ok=True)
        path.write_text(EDIT.format(python=sys.executable, next=self.runtime, edit=edit))
        path.chmod(0o755)
        return str(path)

    # Calls

    def call(self, *words: str, runtime: str = "") -> subprocess.CompletedProcess[bytes]:
        """As an engine does it."""
        self.log.unlink(missing_ok=True)
        env = self._env(runtime)
        return self.bundle.call(self.launcher, *self._flags(), *words, env=env, **self.options)

    def spawn(self, *words: str) -> subprocess.Popen[bytes]:
        """A call that the test does not wait for."""
        command = [self.launcher, "--root", str(self.bundle.root), *self._flags(), *words]
        return subprocess.Popen(command, cwd=self.bundle.folder, env=self._env(""))

    def _flags(self) -> list[str]:
        return ["--log", str(self.log), "--log-format", "json"]

    def _env(self, runtime: str) -> dict[str, str]:
        return {
            "PATH": self.path,
            "GPUPORTION_RUNTIME": runtime or self.runtime,
            "GPUPORTION_RUN_DIR": str(self.daemon.run_dir),
            "GPUPORTION_WAIT_S": "5",
        }

    def bare(self, *words: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
        """Without us."""
        return self.bundle.call(self.runtime, *words, env={"PATH": self.path}, **options)

    def create(self, runtime: str = "") -> subprocess.CompletedProcess[bytes]:
        return self.call("create", self.id, runtime=runtime)

    def start(self, runtime: str = "") -> None:
        """Create and start; it must succeed."""
        for done in (self.create(runtime), self.call("start", self.id)):
            assert done.returncode == 0, done.stderr.decode() + self.said()

    def delete(self) -> None:
        """What every engine does after a create that failed, and to end a container."""
        self.call("delete", "--force", self.id)

    # What there is

    def said(self) -> str:
        """What an engine would show of the last call."""
        return self.log.read_text() if self.log.exists() else ""

    def state(self) -> dict[str, Any] | None:
        done = self.bare("state", self.id)
        return json.loads(done.stdout) if done.returncode == 0 else None

    def pid(self) -> int:
        state = self.state()
        assert state is not None
        return int(state["pid"])

    def pids(self) -> list[int]:
        """Processes in the container's cgroup."""
        for kind in ("", "pids"):
            path = Path("/sys/fs/cgroup") / kind / self.cgroup.lstrip("/") / "cgroup.procs"
            if path.exists():
                return [int(pid) for pid in path.read_text().split()]
        return []

    def leftovers(self) -> list[str]:
        """What is there that was not before the container: files of the bundle, cgroups, state of the runtime."""
        files = set(os.listdir(self.bundle.folder)) - {"config.json", "rootfs"}
        groups = Path("/sys/fs/cgroup").glob(f"*/{self.cgroup.lstrip('/')}")
        return [*files, *map(str, groups), *(["state"] if self.state() is not None else [])]


def hook(*command: str) -> dict[str, Any]:
    """A hook of the test's."""
    return {"path": command[0], "args": list(command), "env": HOOK_ENV}


def shell(script: str, *words: object) -> dict[str, Any]:
    return hook("/bin/sh", "-c", script, "sh", *map(str, words))


def _merged(value: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    for key, change in changes.items():
        if isinstance(change, dict) and isinstance(value.get(key), dict):
            _merged(value[key], change)
        elif isinstance(change, Sequence) and not isinstance(change, str) and key == "mounts":
            value[key] = [*value[key], *change]
        else:
            value[key] = change
    return value
