"""A host with NVIDIA's ways beside ours: a node with two GPUs, a docker and a podman that have the toolkit's stand-ins.

What a container there has comes back as a View. Its tests are integration/test_beside_nvidia.py.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gpuportion import client, paths
from tests.support.container_view import View, view
from tests.support.engines import Podman
from tests.support.node import IMAGE, Node
from tests.support.nvidia_toolkit import RUNTIMES, Toolkit

IMAGE_OF_NVIDIA: Final = "gpuportion-tests-nvidia"
IMAGE_ENV: Final = (
    "NVIDIA_VISIBLE_DEVICES=all",
    "NVIDIA_DRIVER_CAPABILITIES=all",
    "CUDA_VERSION=12.4.1",
    "NVIDIA_REQUIRE_CUDA=cuda>=99",
)
LAUNCH: Final = """#!/bin/sh
GPUPORTION_RUNTIME={low_level} exec {launcher} "$@"
"""


@dataclass(frozen=True)
class Host:
    """A node with two GPUs, NVIDIA's toolkit on docker's PATH, and `nvidia` as docker's default runtime."""

    node: Node
    toolkit: Toolkit
    kept: Path
    has_cdi: bool

    @property
    def sim(self) -> Path:
        return self.node.run_dir / "sim"

    def uuid(self, index: int) -> str:
        return str(client.ask("node").head["gpus"][index]["uuid"])

    def words(self, options: Sequence[str]) -> list[str]:
        """Options with what only this host knows."""
        known = {"SIM": str(self.sim), "DRIVER": f"{self.toolkit.folder}/driver", "UUID": self.uuid(1)}
        return [re.sub("SIM|DRIVER|UUID", lambda found: known[found[0]], option) for option in options]

    @contextmanager
    def container(
        self, options: Sequence[str], *, memory: str | None = "1G", image: str = IMAGE
    ) -> Iterator[View]:
        """What a container that sleeps has. `options` say the runtime."""
        request = ["-e", f"GPU_MEMORY_LIMIT={memory}"] if memory is not None else []
        done = self.node.docker(
            "run", "-d", "--network=none", *request, *options, image, "sleep", "3600", check=False
        )
        name = done.stdout.strip()
        try:
            assert done.returncode == 0, done.stderr
            pid = int(self.node.docker("inspect", "-f", "{{.State.Pid}}", name).stdout)
            yield view(pid, self.kept / name)
        finally:
            self.node.docker("rm", "-f", *([name] if name else []), check=False)

    @contextmanager
    def default_runtime(self, name: str) -> Iterator[None]:
        """docker's, for a while. It reads its file anew when it is told to."""
        before = json.loads(Path(self.node.engine.config_file).read_text())
        try:
            self._configure({**before, "default-runtime": name})
            yield
        finally:
            self._configure(before)

    def _configure(self, settings: Mapping[str, object]) -> None:
        Path(self.node.engine.config_file).write_text(json.dumps(settings))
        os.kill(self.node.engine.pid, signal.SIGHUP)
        asked = ("info", "--format", "{{.DefaultRuntime}}")
        wanted = settings["default-runtime"]
        self.node.until(lambda: self.node.docker(*asked).stdout.strip() == wanted)

    @contextmanager
    def next_runtime(self, path: str) -> Iterator[None]:
        """What nvidia-container-runtime becomes, for a while."""
        file = self.toolkit.folder / "next"
        before = file.read_text()
        try:
            file.write_text(path)
            yield
        finally:
            file.write_text(before)


def script(path: Path, text: str) -> str:
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


def runtimes_of(folder: Path, toolkit: Toolkit) -> dict[str, str]:
    """Name for `docker run --runtime` -> path. `over-...`: our launcher, told to become one of NVIDIA's."""
    launcher = paths.package_file("bin/gpuportion-runtime")
    over = {f"over-{name}": toolkit.program(name) for name in RUNTIMES}
    over["over-link"] = toolkit.link("runc", "nvidia-container-runtime")
    launchers = {
        name: script(folder / name, LAUNCH.format(low_level=shlex.quote(low), launcher=launcher))
        for name, low in over.items()
    }
    return {"gpuportion": launcher, **launchers, **{name: toolkit.program(name) for name in RUNTIMES}}


def docker_version() -> tuple[int, ...]:
    said = subprocess.run(["dockerd", "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r" (\d+)\.(\d+)", said)
    assert found is not None, said
    return tuple(map(int, found.groups()))


def made_image(node: Node) -> None:
    """As NVIDIA's images come: they ask for all GPUs."""
    node.docker("create", "--runtime=gpuportion", "--network=none", "--name=base", IMAGE, "true")
    changes = [word for entry in IMAGE_ENV for word in ("--change", f"ENV {entry}")]
    node.docker("commit", *changes, "base", IMAGE_OF_NVIDIA)
    node.docker("rm", "base")


class NvidiaPodman(Podman):
    """podman where NVIDIA's CDI specification lies in /etc/cdi: in a mount namespace of its own, which only
    it has. Its runtime is back in ours, for the daemon's mounts are there."""

    def __init__(self, folder: Path, root: Path, runtime: str, toolkit: Toolkit) -> None:
        back = f'#!/bin/sh\nexec nsenter --mount=/proc/{os.getpid()}/ns/mnt -- {runtime} "$@"\n'
        super().__init__(folder, root, script(folder / "back", back))
        self.etc = folder / "etc"
        shutil.copytree(toolkit.cdi, self.etc / "cdi")
        toolkit.write_hooks_d(folder / "hooks.d")
        self.hooks_d = f"--hooks-dir={folder}/hooks.d"

    def command(self, *words: str) -> list[str]:
        mount = f'mount -t overlay -o lowerdir={self.etc}:/etc none /etc && exec "$0" "$@"'
        return ["unshare", "--mount", "sh", "-c", mount, *super().command(*words)]
