"""A containerd of our own, with its CRI plugin on, as `gpuportion install` leaves it configured.

folder/
    config.toml conf.d/             what the test wrote, and what `gpuportion install` made of it
    containerd.sock containerd.log
    root/ state/                    kept over a restart, so that the image is loaded only once
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import re
import socket
import subprocess
import tarfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from gpuportion.cli import children
from tests.support.cri import NODE, POD, Cri, pairs
from tests.support.node import CLIENT, gpuportion_command

IMAGE: Final = "gpuportion.test/image:1"
FRAME: Final = """\
version = {version}  # a test's
root = "{folder}/root"
state = "{folder}/state"
[grpc]
  address = "{folder}/containerd.sock"
"""
PLUGINS: Final = {
    2: """\
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{image}"
  restrict_oom_score_adj = true
""",
    3: """\
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "{image}"
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
""",
}
"""Version of a configuration -> what it says of pods. Without CAP_SYS_RESOURCE no score may be lowered."""
HOST: Final = {"namespace_options": {"network": NODE, "pid": POD, "ipc": POD}}
"""Without a network plugin a pod can only have the host's network."""


class PrivateContainerd:
    """Containers by `ctr`; pods by `cri`. `env` reaches the runtime."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = str(folder / "containerd.sock")
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir()
        version = _config_version()
        text = (FRAME + PLUGINS[version]).format(version=version, folder=folder, image=IMAGE)
        (folder / "config.toml").write_text(text)

    def install(self, env: Mapping[str, str]) -> None:
        """`gpuportion install`, on our own configuration."""
        config = str(self.folder / "config.toml")
        command = [gpuportion_command(), "install", "--engine=containerd", "--config", config]
        subprocess.run(command, env=dict(env), check=True, capture_output=True, timeout=60)

    def start(self, env: Mapping[str, str]) -> None:
        log = str(self.folder / "containerd.log")
        command = ["containerd", "--config", str(self.folder / "config.toml")]
        self._process = children.spawn(command, log=log, env=env)
        deadline = time.monotonic() + 60
        while not self._connects():
            assert self._process.poll() is None and time.monotonic() < deadline, children.last_words(log)
            time.sleep(0.02)
        self.cri = Cri(self.socket)

    def stop(self) -> None:
        if self._process is not None:
            self.cri.close()
            children.end(self._process)
        self._process = None

    def remove(self) -> None:
        self.stop()
        children.remove_folder(str(self.folder))

    def ctr(self, *args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        command = self.ctr_command(*args)
        return subprocess.run(
            command, check=check, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL
        )

    def ctr_command(self, *args: str) -> list[str]:
        return ["ctr", "--address", self.socket, *args]

    def load(self, layer: Path) -> None:
        """Make IMAGE of a root filesystem's tar."""
        archive = self.folder / "image.tar"
        with tarfile.open(archive, "w") as tar:
            _write_image(tar, layer)
        self.ctr("--namespace=k8s.io", "images", "import", "--snapshotter=overlayfs", str(archive))
        archive.unlink()

    # Pods

    def run_pod(self, name: str, annotations: Mapping[str, str]) -> tuple[str, dict[str, Any]]:
        """(id, configuration) of a pod with the runtime handler gpuportion."""
        config = {
            "metadata": {"name": name, "uid": name, "namespace": "default"},
            "annotations": pairs(annotations),
            "linux": {"security_context": HOST},
        }
        answer = self.cri.call("RunPodSandbox", config=config, runtime_handler="gpuportion")
        return answer[1].decode(), config

    def start_container(self, pod: tuple[str, dict[str, Any]], env: Mapping[str, str], *command: str) -> str:
        """The id of a container that runs in the pod. CriError if it does not."""
        config = {
            "metadata": {"name": "main"},
            "image": {"image": IMAGE},
            "command": list(command),
            "envs": pairs(env),
            "mounts": {"container_path": "/client.py", "host_path": str(CLIENT), "readonly": 1},
            "linux": {"security_context": HOST},
        }
        answer = self.cri.call("CreateContainer", pod_sandbox_id=pod[0], config=config, sandbox_config=pod[1])
        container = answer[1].decode()
        self.cri.call("StartContainer", container_id=container)
        return container

    def execute(self, container: str, *command: str) -> tuple[str, str]:
        """(stdout, stderr) of a command in the container."""
        answer = self.cri.call("ExecSync", container_id=container, cmd=list(command), timeout=60)
        return answer.get(1, b"").decode(), answer.get(2, b"").decode()

    def remove_pod(self, pod: tuple[str, dict[str, Any]]) -> None:
        """With its containers."""
        self.cri.call("StopPodSandbox", pod_sandbox_id=pod[0])
        self.cri.call("RemovePodSandbox", pod_sandbox_id=pod[0])

    def _connects(self) -> bool:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            return sock.connect_ex(self.socket) == 0


def _config_version() -> int:
    """The newest that the installed containerd knows: 3 from 2.0 on."""
    said = subprocess.run(["containerd", "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r" v?(\d+)\.", said)
    return 3 if found is not None and int(found[1]) >= 2 else 2


def _write_image(tar: tarfile.TarFile, layer: Path) -> None:
    """As `docker save` writes it."""
    with layer.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    config = {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()],
        "os": "linux",
        "config": {"Cmd": ["/usr/bin/sleep", "3600"], "Env": ["PATH=/usr/local/bin:/usr/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"]}]
    for name, value in (("config.json", config), ("manifest.json", manifest)):
        data = json.dumps(value).encode()
        entry = tarfile.TarInfo(name)
        entry.size = len(data)
        tar.addfile(entry, io.BytesIO(data))
    tar.add(layer, "layer.tar")
