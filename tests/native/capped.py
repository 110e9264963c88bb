"""A grant for tests of the interception libraries alone: pages, libraries and a simulated driver in one folder.

The library finds its policy beside itself, as under `gpuportion exec` without a mount namespace. Knows nothing of
the daemon.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gpuportion import simgpu
from tests.support import native

MIB = 1 << 20
OUT_OF_MEMORY = 2


@dataclass(frozen=True)
class Grant:
    """A folder with what a container would have been given."""

    folder: Path
    env: dict[str, str] = field(default_factory=dict)

    @property
    def libcuda(self) -> Path:
        return self.folder / "libcuda.so.1"

    @property
    def libnvml(self) -> Path:
        return self.folder / "libnvidia-ml.so.1"

    def preload(self) -> dict[str, str]:
        """The environment of a process in the grant."""
        return {**os.environ, **self.env, "LD_PRELOAD": f"{self.libcuda}:{self.libnvml}"}

    def on_path(self) -> dict[str, str]:
        """The same by LD_LIBRARY_PATH alone."""
        return {**os.environ, **self.env, "LD_LIBRARY_PATH": str(self.folder)}


def library(target: str) -> Path:
    """One of the two libraries, built."""
    return Path(native.built(target, "libcap_mem")).with_name(f"lib{target}.so")


def make_grant(folder: Path, libcuda: str, libnvml: str, gpus: Sequence[str], **env: str) -> Grant:
    """Pages in `folder` for GPUs written "uuid:limit:context", and the two libraries beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        [native.built("cap_pages", "libcap_mem"), str(folder), libcuda, libnvml, *gpus], check=True
    )
    shutil.copy(library("cap_mem"), folder / "libcuda.so.1")
    shutil.copy(library("cap_nvml"), folder / "libnvidia-ml.so.1")
    return Grant(folder, env)


@dataclass(frozen=True)
class Simulated:
    """A simulated driver, and grants on it."""

    sim: simgpu.Sim
    folder: Path

    def grant(self, *limits: int, context: int = 0, name: str = "grant") -> Grant:
        """One grant on the first GPUs, a limit each."""
        gpus = [
            f"{device.uuid.removeprefix('GPU-').replace('-', '')}:{limit}:{context}"
            for device, limit in zip(self.sim.devices, limits, strict=False)
        ]
        lib = self.sim.lib
        return make_grant(
            self.folder / name,
            f"{lib}/libcuda.so.1",
            f"{lib}/libnvidia-ml.so.1",
            gpus,
            GPUPORTION_SIM_STATE=self.sim.state,
        )

    def used(self) -> int:
        """Bytes that the simulated driver has given out on the first GPU."""
        status = simgpu.status(self.sim.directory)
        assert status is not None
        return sum(holder.bytes for holder in status.holders if holder.device == 0)


def simulate(
    folder: Path,
    spec: str = "a100-80gb",
    seed: int | None = None,
    behaviour: simgpu.Behaviour | None = None,
    **costs: int,
) -> Simulated:
    """A simulated driver of its own in `folder`; `costs` in bytes."""
    for target in ("simcuda", "simnvml"):
        built = Path(native.built(target, "simgpu")).with_name("lib")
    sim = simgpu.start(
        spec,
        str(folder / "sim"),
        cdi_dir=None,
        costs=costs or None,
        seed=seed,
        libraries=str(built),
        behaviour=behaviour or simgpu.Behaviour(),
    )
    return Simulated(sim, folder)


class Client:
    """A C client that does what it is told: see cap_client.c. `before`: a command that becomes it."""

    def __init__(
        self,
        env: dict[str, str],
        way: str = "dlsym",
        build: str = "cap_client",
        before: Sequence[str] = (),
    ) -> None:
        program = native.built(build, "libcap_mem")
        self.process = subprocess.Popen(
            [*before, program, way],
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __call__(self, command: str) -> tuple[int, ...]:
        """The driver's result, and what the command answers besides."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, f"{command!r}: the client has ended: {self.errors()}"
        return tuple(int(word) for word in line.split())

    def begin(self) -> Client:
        """Initialised, with the first device's primary context current."""
        assert self("init") == (0,)
        assert self("retain 0") == (0,)
        return self

    def free_bytes(self) -> int:
        result, free, _, _ = self("info")
        assert result == 0
        return free

    def errors(self) -> str:
        """What it has written to stderr, once it has ended."""
        assert self.process.stderr
        return self.process.stderr.read()

    def end(self) -> str:
        """Ends it in peace; its stderr."""
        _, errors = self.process.communicate(timeout=60)
        assert self.process.returncode == 0, errors
        return str(errors)

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()
