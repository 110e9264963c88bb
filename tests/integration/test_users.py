"""Who a container's processes are, and whose namespaces they see: each held to its grant."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support import bundle, engines
from tests.support.engines import Podman
from tests.support.node import CLIENT, CLIENT_COMMAND, MB, Node
from tests.support.session import CudaSession, holds_to_1g

pytestmark = pytest.mark.containers

USERS = {
    "non-root": ["--user=1000:1000"],
    "not-in-passwd": ["--user=54321:54321", "--cap-drop=ALL"],
    "no-capabilities": ["--cap-drop=ALL", "--security-opt=no-new-privileges"],
    "nothing-at-all": ["--user=nobody", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--read-only"],
}
NAMESPACES = {
    "pid": ["--pid=host"],
    "ipc": ["--ipc=host"],
    "pid-and-ipc": ["--pid=host", "--ipc=host", "--uts=host"],
    "pid-as-a-user": ["--pid=host", "--user=1000:1000"],
}
MAPPED = [{"containerID": 0, "hostID": 100000, "size": 65536}]


@pytest.mark.parametrize("options", USERS.values(), ids=USERS)
def test_any_user(node: Node, options: list[str]) -> None:
    """Whoever runs, and with however little right: the first process, and `docker exec`."""
    with node.session("1G", options=options) as client:
        holds_to_1g(client)
    with node.container("1G", options=options) as name, node.exec_session(name) as client:
        holds_to_1g(client)


@pytest.mark.parametrize("options", NAMESPACES.values(), ids=NAMESPACES)
def test_namespaces_of_the_host(node: Node, options: list[str]) -> None:
    """Two processes of one container share the grant; NVML tells them, by the PIDs that they see."""
    with (
        node.container("1G", options=options) as name,
        node.exec_session(name) as one,
        node.exec_session(name) as two,
    ):
        assert one.alloc(350 * MB) == "CUDA_SUCCESS"
        assert set(two.ask("nvml")["processes"]) == {str(one.pid), str(two.pid)}
        assert two.alloc(350 * MB) == "CUDA_ERROR_OUT_OF_MEMORY"
        one.end()
        holds_to_1g(two)


def test_two_containers_in_the_hosts_namespaces(node: Node) -> None:
    """They see each other's processes, and neither takes the other's share."""
    options = ["--pid=host", "--ipc=host"]
    with node.session("1G", options=options) as one, node.session("1G", options=options) as two:
        assert one.alloc(600 * MB) == "CUDA_SUCCESS"
        assert list(two.ask("nvml")["processes"]) == [str(two.pid)]
        holds_to_1g(two)
        assert one.alloc(600 * MB) == "CUDA_ERROR_OUT_OF_MEMORY"


# One container by runc or crun alone


class Bundle:
    """A container on the tests' root filesystem by a low-level runtime, with the launcher before it."""

    def __init__(self, node: Node, folder: Path, root: Path, low_level: str) -> None:
        self.folder = folder
        self.folder.mkdir()
        self.launcher = engines.launcher(folder, node, low_level)
        self.root, self.state = root, folder / "state"
        self.id = f"gpuportion-test-{uuid.uuid4().hex[:12]}"

    def command(self, *words: str) -> list[str]:
        return [self.launcher, "--root", str(self.state), *words]

    def call(self, *words: str) -> bytes:
        """What it says; output of a container goes nowhere."""
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
            command = self.command(*words)
            done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=out, stderr=errors, check=False)
            out.seek(0)
            errors.seek(0)
            assert done.returncode == 0, errors.read()
            return out.read()

    def write(self, args: list[str], namespaces: list[str], **linux: Any) -> None:
        made = bundle.spec(env=["GPU_MEMORY_LIMIT=1G"])
        made["process"]["args"] = args
        made["process"]["env"][0] = f"PATH={bundle.SYSTEM_PATH}"
        made["root"] = {"path": str(self.root)}
        options = ["rbind", "ro"]
        made["mounts"].append(
            {"destination": "/client.py", "source": str(CLIENT), "type": "bind", "options": options}
        )
        made["linux"] = {
            "namespaces": [{"type": kind} for kind in namespaces],
            "cgroupsPath": f"/{self.id}",
            **linux,
        }
        (self.folder / "config.json").write_text(json.dumps(made))


@contextlib.contextmanager
def open_to_others(*folders: Path) -> Iterator[None]:
    """A mapped root must reach what is mounted; an installed node's folders are 0755."""
    for folder in folders:
        folder.chmod(0o711)
    try:
        yield
    finally:
        for folder in folders:
            folder.chmod(0o700)


@pytest.fixture(scope="module")
def mapped_root(root_folder: Path, short_folder: Path) -> Path:
    """The root filesystem as a mapped root owns it: so engines prepare it."""
    folder = short_folder / "mapped-rootfs"
    subprocess.run(["cp", "-a", str(root_folder), str(folder)], check=True)
    subprocess.run(["chown", "-R", f"{MAPPED[0]['hostID']}:{MAPPED[0]['hostID']}", str(folder)], check=True)
    return folder


@pytest.fixture(params=["runc", "crun"])
def own(
    request: pytest.FixtureRequest, node: Node, short_folder: Path, mapped_root: Path
) -> Iterator[Bundle]:
    if bundle.low_level(request.param) is None:
        pytest.skip(f"needs {request.param}")
    with open_to_others(short_folder, node.folder):
        made = Bundle(node, short_folder / uuid.uuid4().hex[:8], mapped_root, request.param)
        yield made


def test_a_user_namespace(own: Bundle, node: Node) -> None:
    """Root of the container is an ordinary user of the host."""
    maps = {"uidMappings": MAPPED, "gidMappings": MAPPED}
    own.write(list(CLIENT_COMMAND), ["pid", "mount", "ipc", "uts", "network", "user"], **maps)
    with CudaSession(own.command("run", "--bundle", str(own.folder), own.id)) as client:
        holds_to_1g(client)


OUTLIVE = "sleep 600 & echo $! > /tmp/pid"


OUTLIVE = "sleep 600 & echo $! > /tmp/pid"


def test_processes_that_outlive_init_keep_the_grant(own: Bundle, node: Node) -> None:
    """In the host's pid namespace nothing ends them with init: the grant stays until they're gone."""
    own.write(["sh", "-c", OUTLIVE], ["mount", "ipc", "uts", "network"])
    own.call("create", "--bundle", str(own.folder), own.id)
    init = json.loads(own.call("state", own.id))["pid"]
    own.call("start", own.id)
    node.until(lambda: _is_dead(init))
    pid = int((own.root / "tmp/pid").read_text())
    try:
        assert len(node.ps()) == 1
        assert not _is_dead(pid)
    finally:
        os.kill(pid, signal.SIGKILL)
    node.until(lambda: not node.ps())
    own.call("delete", "--force", own.id)


def _is_dead(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    return state == "Z"


def test_podman_with_a_uid_map(node: Node, short_folder: Path, mapped_root: Path) -> None:
    """`--uidmap` of a podman that root runs."""
    if reason := engines.missing("podman", "conmon", "runc"):
        pytest.skip(reason)
    folder = short_folder / "podman-mapped"
    folder.mkdir()
    podman = Podman(folder, mapped_root, engines.launcher(folder, node, "runc"))
    name = f"gpuportion-test-{uuid.uuid4().hex[:12]}"
    options = ["--uidmap=0:100000:65536", "--gidmap=0:100000:65536", *podman.options(memory="1G")]
    with (
        open_to_others(short_folder, node.folder),
        podman.session(podman.run(name, options, *CLIENT_COMMAND)) as client,
    ):
        holds_to_1g(client)
