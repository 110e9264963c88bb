"""A whole node for the end-to-end tests: simulated GPUs, a daemon, a private docker, an image.

All of it lies in one folder under /tmp and is ended with the tests. The daemon runs as users run it
(`gpuportion daemon --sim ...`), docker as its own (cli/private_dockerd.py).
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from gpuportion import client, paths
from gpuportion.cli import rootfs
from gpuportion.cli.private_dockerd import PrivateDocker
from gpuportion.errors import GpuportionError
from gpuportion.simgpu import state as simulated
from tests.support.daemon import unmount_below
from tests.support.session import CudaSession

MB: Final = 10**6
IMAGE: Final = "gpuportion-tests"
CLIENT: Final = Path(__file__).with_name("cuda_session.py")
PYTHON: Final = os.path.realpath(sys.executable)
CLIENT_COMMAND: Final = (PYTHON, "/client.py")
SPY: Final = """#!/bin/sh
# Saves the sum of config.json as it is now, then goes on: {next}
case " $* " in *" create "*)
    b=; for a; do [ "$b" = next ] && b=$a; [ "$a" = --bundle ] && b=next; done
    sha256sum < "$b/config.json" | cut -d' ' -f1 >> {saved};;
esac
{env} exec {next} "$@"
"""


def gpuportion_command() -> str:
    """The command of this installation, beside the interpreter."""
    return str(Path(sys.executable).with_name("gpuportion"))


class Node:
    """Everything between `start` and `stop`."""

    def __init__(self, folder: Path, sim: str = "a100-80gb:1") -> None:
        self.folder = folder
        self.sim = sim
        self.run_dir = folder / "run"
        self.env = {
            **os.environ,
            "GPUPORTION_RUN_DIR": str(self.run_dir),
            "GPUPORTION_STATE_DIR": str(folder / "lib"),
        }
        self.spied = folder / "spied-runtime"
        runtimes = {
            "gpuportion": paths.package_file("bin/gpuportion-runtime"),
            "gpuportion-spied": str(self.spied),
        }
        self.programs = folder / "programs"
        """The engine and what it starts look here first for programs: a test may bring some."""
        self.engine = PrivateDocker(
            str(folder / "docker"),
            runtimes=runtimes,
            env={
                "GPUPORTION_RUN_DIR": str(self.run_dir),
                "GPUPORTION_WAIT_S": "3",
                "PATH": f"{self.programs}:{os.environ['PATH']}",
            },
            settings={"experimental": True},  # docker's checkpoints are
        )
        self.log = folder / "gpuportiond.log"
        self._daemon: subprocess.Popen[bytes] | None = None
        self._names = 0

    def start(self) -> None:
        os.environ["GPUPORTION_RUN_DIR"] = str(self.run_dir)  # client.ask looks there
        self.run_dir.mkdir(parents=True)
        self.start_daemon()
        self.engine.start()
        self.engine.import_image(IMAGE, lambda out: rootfs.write(out, clients=rootfs.CLIENTS))

    def stop(self) -> None:
        try:
            self.engine.stop()
            with contextlib.suppress(GpuportionError):
                self.until(lambda: not self.ps())
        finally:
            self._end_daemon(signal.SIGTERM)
            unmount_below(self.folder)

    # The daemon

    def start_daemon(self) -> None:
        with self.log.open("ab") as log:
            self._daemon = subprocess.Popen(
                [gpuportion_command(), "daemon", "--sim", self.sim], env=self.env, stdout=log, stderr=log
            )
        self.until(self._answers)

    def kill_daemon(self) -> None:
        self._end_daemon(signal.SIGKILL)

    @contextlib.contextmanager
    def daemon_down(self) -> Iterator[None]:
        self._end_daemon(signal.SIGTERM)
        try:
            yield
        finally:
            self.start_daemon()

    def _end_daemon(self, sign: signal.Signals) -> None:
        assert self._daemon is not None
        self._daemon.send_signal(sign)
        self._daemon.wait(timeout=60)

    def _answers(self) -> bool:
        assert self._daemon is not None
        assert self._daemon.poll() is None, self.log.read_text()[-2000:]
        try:
            return bool(client.ask("ping", wait=5).head["ready"])
        except GpuportionError:
            return False

    # What there is

    def ps(self) -> list[dict[str, Any]]:
        grants = client.ask("ps").head["grants"]
        assert isinstance(grants, list)
        return grants

    def free(self) -> int:
        """Bytes that GPU 0 has to grant."""
        return int(client.ask("node").head["gpus"][0]["free"])

    def taken(self) -> int:
        """Bytes of the simulated GPU 0 in use: the oracle beside our own accounting."""
        return simulated.used(str(self.run_dir / "sim" / "state"), 0)

    def gpuportion(self, *args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [gpuportion_command(), *args],
            env=self.env,
            capture_output=True,
            text=True,
            check=True,
            timeout=150,
        )

    def until(self, condition: Callable[[], bool], seconds: float = 150) -> None:
        """Waits for what must come to be, by itself, soon; the bound is only there to end a broken test."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, (
                f"not within {seconds} s; the daemon's log ends:\n{self.tail()}"
            )
            time.sleep(0.05)

    def tail(self) -> str:
        return "\n".join(self.log.read_text().splitlines()[-20:])

    # Containers

    def docker(self, *args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.engine.run(*args, check=check)

    def docker_run(
        self,
        memory: str | None = None,
        *,
        command: Sequence[str],
        name: str | None = None,
        detach: bool = False,
        runtime: str = "gpuportion",
        options: Sequence[str] = (),
        image: str = IMAGE,
    ) -> subprocess.CompletedProcess[str]:
        """`docker run`; not checked, because a refusal is as good a result as any."""
        flags = self._flags(memory, name or self._new_name(), runtime, options)
        return self.docker("run", *(["-d"] if detach else ["--rm"]), *flags, image, *command, check=False)

    @contextlib.contextmanager
    def container(
        self,
        memory: str | None,
        *,
        name: str | None = None,
        options: Sequence[str] = (),
        image: str = IMAGE,
        command: Sequence[str] = ("sleep", "3600"),
    ) -> Iterator[str]:
        """A container that sleeps; its name. Without `memory` the `options` ask."""
        name = name or self._new_name()
        try:
            done = self.docker_run(
                memory, name=name, detach=True, options=options, image=image, command=command
            )
            assert done.returncode == 0, done.stderr
            yield name
        finally:
            self.docker("rm", "-f", name, check=False)

    @contextlib.contextmanager
    def session(
        self,
        memory: str | None,
        *,
        options: Sequence[str] = (),
        image: str = IMAGE,
        command: Sequence[str] = CLIENT_COMMAND,
    ) -> Iterator[CudaSession]:
        """A container whose first process is a CUDA client."""
        name = self._new_name()
        run = ["docker", "run", "-i", "--rm", *self._flags(memory, name, "gpuportion", options)]
        try:
            with CudaSession([*run, image, *command], env=self.engine.client_env) as talk:
                yield talk
        finally:
            self.docker("rm", "-f", name, check=False)

    def exec_session(
        self,
        name: str,
        *options: str,
        wrapper: Sequence[str] = (),
        command: Sequence[str] = CLIENT_COMMAND,
    ) -> CudaSession:
        """A CUDA client that `docker exec` starts in a container that is there."""
        words = ["docker", "exec", "-i", *options, name, *wrapper, *command]
        return CudaSession(words, env=self.engine.client_env)

    def container_id(self, name: str) -> str:
        return self.docker("inspect", "-f", "{{.Id}}", name).stdout.strip()

    def spy_on_config(self, saved: Path) -> None:
        """Makes the runtime `gpuportion-spied` save the sum of config.json before and after our launcher."""
        after = self.folder / "spied-after"
        runtime = paths.package_file("bin/gpuportion-runtime")
        _script(after, SPY.format(next="/usr/sbin/runc", saved=shlex.quote(str(saved)), env=""))
        own = f"GPUPORTION_RUNTIME={shlex.quote(str(after))}"
        _script(self.spied, SPY.format(next=runtime, saved=shlex.quote(str(saved)), env=own))

    def _flags(self, memory: str | None, name: str, runtime: str, options: Sequence[str]) -> list[str]:
        request = ["-e", f"GPU_MEMORY_LIMIT={memory}"] if memory is not None else []
        mount = ["-v", f"{CLIENT}:/client.py:ro"]
        return [f"--runtime={runtime}", "--network=none", "--name", name, *mount, *request, *options]

    def _new_name(self) -> str:
        self._names += 1
        return f"t{self._names}-{os.getpid()}"


def _script(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)
