"""podman and ctr, each before each low-level runtime: one way to ask for the same things."""

from __future__ import annotations

import contextlib
import copy
import itertools
import os
import shlex
import shutil
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Protocol

import pytest

from gpuportion import paths
from gpuportion.shim.engines import installation
from gpuportion.shim.engines.table import ENGINES
from tests.support import bundle
from tests.support.containerd import PrivateContainerd
from tests.support.node import CLIENT, PYTHON
from tests.support.session import CudaSession

LAUNCH: Final = """#!/bin/sh
# The launcher, with the test's environment: podman and ctr hand theirs to no runtime.
export GPUPORTION_RUN_DIR={run_dir} GPUPORTION_WAIT_S=3 GPUPORTION_RUNTIME={low_level}
exec {launcher} "$@"
"""
LIMITS: Final = ("--ulimit=nofile=1024:1024", "--ulimit=nproc=1000:1000")
"""podman's own are above what a root without CAP_SYS_RESOURCE may set."""


class Served(Protocol):
    """A node, or a daemon alone: what the launcher has to find."""

    run_dir: Path


def low_level(folder: Path, name: str) -> str:
    """The path of runc or crun as it works on this host, perhaps a script of the same name."""
    path = bundle.low_level(name)
    assert path is not None
    before = bundle.hides_hybrid(path)
    return (
        path
        if not before
        else _script(folder / name, f'#!/bin/sh\nexec {shlex.join([*before, path])} "$@"\n')
    )


def launcher(folder: Path, node: Served, name: str) -> str:
    """The launcher as a program that needs no environment; what it becomes is runc or crun."""
    return launcher_of(folder, node, low_level(folder, name))


def launcher_of(folder: Path, node: Served, path: str) -> str:
    """The same, before the low-level runtime at `path`."""
    return _script(
        folder / f"launch-{Path(path).name}",
        LAUNCH.format(
            run_dir=shlex.quote(str(node.run_dir)),
            low_level=shlex.quote(path),
            launcher=shlex.quote(paths.package_file("bin/gpuportion-runtime")),
        ),
    )


def _script(path: Path, text: str) -> str:
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


class Engine(ABC):
    """Containers on an unpacked root filesystem; the words of their commands are a subclass's."""

    root: Path

    def options(self, *, memory: str | None = None, annotation: str | None = None) -> list[str]:
        env = ["--env", f"GPU_MEMORY_LIMIT={memory}"] if memory is not None else []
        note = ["--annotation", f"gpuportion.io/memory-limit={annotation}"] if annotation is not None else []
        return [*env, *note]

    @abstractmethod
    def command(self, *words: str) -> list[str]: ...

    @abstractmethod
    def run(self, name: str, options: Sequence[str], *command: str) -> list[str]:
        """The command that runs a container in the foreground and removes it."""

    @abstractmethod
    def start(self, name: str, options: Sequence[str], *command: str) -> list[str]:
        """The command that starts one in the background."""

    @abstractmethod
    def execute(self, name: str, *command: str) -> list[str]: ...

    @abstractmethod
    def remove(self, name: str) -> list[list[str]]: ...

    def session(self, command: list[str]) -> CudaSession:
        return CudaSession(command, env=self.env)

    @property
    def env(self) -> dict[str, str]:
        return dict(os.environ)

    def done(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        """Not checked: a refusal is as good a result as any."""
        return subprocess.run(
            command,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            stdin=subprocess.DEVNULL,
        )

    @abstractmethod
    def alone(self, low_level: str) -> Engine:
        """The same engine without us before the low-level runtime."""

    def objection(self, low_level: str) -> str | None:
        """Why this engine runs no container by this low-level runtime, even without us; None: it does."""
        done = self.done(self.alone(low_level).run("gpuportion-test-alone", [], "/usr/bin/true"))
        return None if done.returncode == 0 else f"needs another {low_level}: {done.stderr.strip()}"

    @contextlib.contextmanager
    def container(self, name: str, options: Sequence[str]) -> Iterator[str]:
        try:
            quiet = subprocess.DEVNULL  # the container of ctr keeps them open
            command = self.start(name, options, "/usr/bin/sleep", "3600")
            subprocess.run(
                command, env=self.env, check=True, timeout=120, stdin=quiet, stdout=quiet, stderr=quiet
            )
            yield name
        finally:
            for command in self.remove(name):
                self.done(command)


class Podman(Engine):
    """podman with folders of its own, and our drop-in as its whole configuration."""

    def __init__(self, folder: Path, root: Path, runtime: str) -> None:
        self.folder, self.root, self.runtime = folder, root, "gpuportion"
        self.config = folder / "containers.conf.d/gpuportion.conf"
        edits = ENGINES["podman"].edits(str(self.config), runtime, False)
        installation.apply("podman", installation.plan_install("podman", edits, str(folder)), str(folder))

    @property
    def env(self) -> dict[str, str]:
        return {**os.environ, "CONTAINERS_CONF": str(self.config)}

    def alone(self, low_level: str) -> Engine:
        engine = copy.copy(self)
        engine.runtime = low_level
        return engine

    def command(self, *words: str) -> list[str]:
        own = [f"--root={self.folder}/root", f"--runroot={self.folder}/runroot", "--cgroup-manager=cgroupfs"]
        return ["podman", *own, f"--runtime={self.runtime}", *words]

    def run(self, name: str, options: Sequence[str], *command: str) -> list[str]:
        return self.command(
            "run", "--rm", "-i", *self._flags(name), *options, "--rootfs", str(self.root), *command
        )

    def start(self, name: str, options: Sequence[str], *command: str) -> list[str]:
        return self.command("run", "-d", *self._flags(name), *options, "--rootfs", str(self.root), *command)

    def execute(self, name: str, *command: str) -> list[str]:
        return self.command("exec", "-i", name, *command)

    def remove(self, name: str) -> list[list[str]]:
        return [self.command("rm", "--force", "--time=0", name)]

    def _flags(self, name: str) -> list[str]:
        return ["--network=none", f"--name={name}", f"--volume={CLIENT}:/client.py:ro", *LIMITS]


class Ctr(Engine):
    """containerd's own client, which is told the runtime with each container."""

    def __init__(self, containerd: PrivateContainerd, root: Path, runtime: str) -> None:
        self.containerd, self.root, self.runtime = containerd, root, runtime

    def alone(self, low_level: str) -> Engine:
        return Ctr(self.containerd, self.root, low_level)

    def command(self, *words: str) -> list[str]:
        return self.containerd.ctr_command(*words)

    def run(self, name: str, options: Sequence[str], *command: str) -> list[str]:
        return self._run("--rm", name, options, command)

    def start(self, name: str, options: Sequence[str], *command: str) -> list[str]:
        return self._run("--detach", name, options, command)

    def execute(self, name: str, *command: str) -> list[str]:
        return self.command("task", "exec", "--exec-id=client", name, *command)

    def remove(self, name: str) -> list[list[str]]:
        return [self.command("task", "rm", "--force", name), self.command("container", "rm", name)]

    def _run(self, way: str, name: str, options: Sequence[str], command: Sequence[str]) -> list[str]:
        mount = f"--mount=type=bind,src={CLIENT},dst=/client.py,options=rbind:ro"
        flags = [way, f"--runc-binary={self.runtime}", mount, *options, "--rootfs", str(self.root)]
        return self.command("run", *flags, name, *command)


CLIENT_COMMAND: Final = (PYTHON, "/client.py")


def missing(*programs: str) -> str | None:
    """What a test lacks here, or None."""
    path = f"{os.environ['PATH']}:/usr/local/sbin:/usr/sbin:/sbin"
    return next(
        (f"needs {program}" for program in programs if shutil.which(program, path=path) is None), None
    )


NEEDED: Final = {"podman": ("podman", "conmon"), "ctr": ("containerd", "ctr")}
"""The engines that need no daemon of docker's, and their programs."""
WITH_EACH_RUNTIME: Final = list(itertools.product(NEEDED, ["runc", "crun"]))


@contextlib.contextmanager
def one(kind: str, name: str, node: Served, root_folder: Path, folder: Path) -> Iterator[Engine]:
    """One engine of NEEDED before the low-level runtime `name`, in a new folder of its own; the test is skipped where
    it can't be had."""
    reason = missing(*NEEDED[kind]) or (bundle.low_level(name) is None and f"needs {name}")
    if reason:
        pytest.skip(reason)
    folder.mkdir()
    runtime = launcher(folder, node, name)
    with contextlib.ExitStack() as stack:
        made: Engine
        if kind == "podman":
            made = Podman(folder, root_folder, runtime)
        else:
            containerd = PrivateContainerd(folder / "containerd")
            stack.callback(containerd.remove)
            containerd.start(os.environ)
            made = Ctr(containerd, root_folder, runtime)
        if objection := made.objection(low_level(folder, name)):
            pytest.skip(objection)
        yield made
