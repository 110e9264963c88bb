"""A docker daemon of our own, for the demo and the tests: its own containerd, sockets, images and state.

    folder/
        daemon.json containerd.toml     what the two were started with
        docker.sock containerd.sock
        containerd.log dockerd.log
        images/ state/ containerd/      data-root and exec-root of dockerd; root and state of containerd
        client/                         DOCKER_CONFIG: the user's contexts and credentials stay out of it

Nothing of the machine is changed: no bridge, no firewall rule, no forwarding; containers have no network. The
containerd is our own as well: dockerd would join one that is there, and share containers with the docker of
the machine, and the runtime's environment would not be ours. Both die with this process, however it dies.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import IO, Any, Final

from gpuportion.cli import children
from gpuportion.errors import GpuportionError

WAIT: Final = 60.0
"""Seconds for a daemon to answer, or to remove the containers; a slow disk takes 10."""

NETWORK: Final[dict[str, Any]] = {
    "bridge": "none",
    "iptables": False,
    "ip-forward": False,
    "ip-masq": False,
    "userland-proxy": False,
}
CONTAINERD: Final = """\
version = 2
root = "{folder}/containerd/root"
state = "{folder}/containerd/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = "{folder}/containerd.sock"
"""


class PrivateDocker:
    """A dockerd between `start` and `stop`, or for the length of a `with`.

    `runtimes` maps a name for `docker run --runtime` to the path of an OCI runtime. `env` is added to
    the environment of containerd, and so of the runtime: GPUPORTION_RUN_DIR says where the socket is.
    """

    def __init__(
        self,
        folder: str,
        *,
        runtimes: Mapping[str, str] | None = None,
        env: Mapping[str, str] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder = os.path.abspath(folder)
        self.socket = f"{self.folder}/docker.sock"
        self.runtimes = dict(runtimes or {})
        self.settings = dict(settings or {})
        self.daemon_env = {**os.environ, **(env or {})}
        self.client_env = {
            **os.environ,
            "DOCKER_HOST": f"unix://{self.socket}",
            "DOCKER_CONFIG": f"{self.folder}/client",
        }
        for name in ("DOCKER_CONTEXT", "DOCKER_API_VERSION", "DOCKER_TLS_VERIFY", "DOCKER_DEFAULT_PLATFORM"):
            self.client_env.pop(name, None)
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> PrivateDocker:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Of dockerd itself: what a SIGHUP has to reach."""
        return self._processes[1].pid

    @property
    def config_file(self) -> str:
        return f"{self.folder}/daemon.json"

    def start(self) -> None:
        """Start both and return when docker answers. Else GpuportionError GP306, with the last words."""
        os.makedirs(f"{self.folder}/client", exist_ok=True)
        self._configure()
        self._spawn("containerd", ["--config", f"{self.folder}/containerd.toml"])
        self._until("containerd", lambda: _connects(f"{self.folder}/containerd.sock"))
        self._spawn(
            "dockerd", ["--config-file", self.config_file, "--containerd", f"{self.folder}/containerd.sock"]
        )
        self._until("dockerd", lambda: _pings(self.socket))

    def stop(self) -> None:
        """End the containers, then the daemons, by pid; then remove the folder. May be called at any time."""
        if len(self._processes) == 2 and self._processes[1].poll() is None:
            self._remove_containers()
        for process in reversed(self._processes):
            children.end(process)
        self._processes.clear()
        children.remove_folder(self.folder)

    def run(
        self, *args: str, check: bool = True, timeout: float = 120, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """`docker args...`, its output captured as text. CalledProcessError if it fails and `check`."""
        options = {"stdin": subprocess.DEVNULL, **options}
        return subprocess.run(
            ["docker", *args],
            env=self.client_env,
            capture_output=True,
            text=True,
            check=check,
            timeout=timeout,
            **options,
        )

    def popen(self, *args: str, **options: Any) -> subprocess.Popen[str]:
        """`docker args...` that goes on in the background; the caller waits for it."""
        return subprocess.Popen(["docker", *args], env=self.client_env, text=True, **options)

    def import_image(
        self, name: str, write: Callable[[IO[bytes]], None], *, changes: Sequence[str] = ()
    ) -> None:
        """Make the image `name` of the tar that `write` writes; `changes`: Dockerfile lines (`ENV A=b`)."""
        flags = [word for change in changes for word in ("--change", change)]
        command = ["docker", "import", *flags, "-", name]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, env=self.client_env, stdin=pipe, stdout=pipe, stderr=pipe) as process:
            assert process.stdin is not None
            # What it complained of says more than that it stopped to listen.
            with suppress(BrokenPipeError):
                write(process.stdin)
            _, complaint = process.communicate()
        if process.returncode != 0:
            raise GpuportionError(
                "GP306", what=f"docker import {name}", why=complaint.decode(errors="replace").strip()
            )

    def _configure(self) -> None:
        folder = self.folder
        own = {
            "data-root": f"{folder}/images",
            "exec-root": f"{folder}/state",
            "pidfile": f"{folder}/dockerd.pid",
            "hosts": [f"unix://{self.socket}"],
            "runtimes": {name: {"path": path} for name, path in self.runtimes.items()},
        }
        with open(self.config_file, "w", encoding="utf-8") as file:
            json.dump({**NETWORK, **own, **self.settings}, file, indent=4)
        with open(f"{folder}/containerd.toml", "w", encoding="utf-8") as file:
            file.write(CONTAINERD.format(folder=folder))

    def _spawn(self, name: str, args: Sequence[str]) -> None:
        program = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
        if program is None:
            raise GpuportionError(
                "GP305", what=name, why="install docker, for example: apt-get install docker.io"
            )
        log = f"{self.folder}/{name}.log"
        self._processes.append(children.spawn([program, *args], log=log, env=self.daemon_env))

    def _until(self, name: str, is_up: Callable[[], bool]) -> None:
        process, deadline = self._processes[-1], time.monotonic() + WAIT
        while not is_up():
            if process.poll() is not None:
                raise GpuportionError("GP306", what=name, why=f"it ended at once: {self._last_words(name)}")
            if time.monotonic() > deadline:
                raise GpuportionError(
                    "GP306", what=name, why=f"no answer in {WAIT:.0f} s: {self._last_words(name)}"
                )
            time.sleep(0.02)

    def _last_words(self, name: str) -> str:
        return children.last_words(f"{self.folder}/{name}.log")

    def _remove_containers(self) -> None:
        try:
            ids = self.run("ps", "--all", "--quiet", timeout=WAIT).stdout.split()
            if ids:
                self.run("rm", "--force", *ids, timeout=WAIT, check=False)
        except subprocess.SubprocessError:
            pass  # dockerd ends them when it is ended itself


def _connects(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        return sock.connect_ex(path) == 0


def _pings(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(5)
        try:
            sock.connect(path)
            sock.sendall(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")
            return b" 200 " in sock.recv(64)
        except OSError:
            return False
