"""docker's verbs on a container with a grant: as without us; and docker's own daemons killed under it.

The grant fills the GPU wherever a leak or a second one would show.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import signal
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from tests.support import bundle, engines
from tests.support.node import MB, Node

pytestmark = pytest.mark.containers

LONG = bool(os.environ.get("GPUPORTION_TEST_LONG"))
SHELL = "trap 'exit 3' TERM; trap 'echo hup' HUP; echo up; while :; do sleep 0.05; done"


@pytest.fixture(scope="module", params=["runc", "crun"])
def runtimes(
    request: pytest.FixtureRequest, running_node: Node, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, str]:
    """Names that docker knows: a low-level runtime alone, and the launcher before it."""
    name = request.param
    if bundle.low_level(name) is None:
        pytest.skip(f"needs {name}")
    folder = tmp_path_factory.mktemp(name)
    engine = running_node.engine
    engine.runtimes |= {
        f"alone-{name}": engines.low_level(folder, name),
        f"ours-{name}": engines.launcher(folder, running_node, name),
    }
    reload(running_node)
    done = running_node.docker_run(runtime=f"alone-{name}", command=["true"])
    if done.returncode != 0:
        pytest.skip(f"needs another {name}: {done.stderr.strip()}")
    return f"alone-{name}", f"ours-{name}"


def reload(node: Node) -> None:
    """Give dockerd the runtimes that there are now."""
    node.engine._configure()
    os.kill(node.engine.pid, signal.SIGHUP)
    wanted = set(node.engine.runtimes)
    node.until(
        lambda: (
            wanted
            <= set(node.docker("info", "-f", "{{range $k, $v := .Runtimes}}{{$k}} {{end}}").stdout.split())
        )
    )


def whole(node: Node) -> str:
    return f"{node.free() >> 20}Mi"


@contextlib.contextmanager
def container(
    node: Node, runtime: str, memory: str | None, *command: str, options: Sequence[str] = ()
) -> Iterator[str]:
    name = node._new_name()
    try:
        done = node.docker_run(
            memory,
            runtime=runtime,
            name=name,
            detach=True,
            options=options,
            command=command or ["sleep", "3600"],
        )
        assert done.returncode == 0, done.stderr
        yield name
    finally:
        node.docker("rm", "-f", name, check=False)


VERBS: tuple[tuple[str, ...], ...] = (
    ("exec", "NAME", "sh", "-c", "echo out; echo err >&2; exit 7"),
    ("exec", "-t", "NAME", "sh", "-c", "test -t 1 && echo terminal"),
    ("exec", "NAME", "does-not-exist"),
    ("exec", "--user", "1234", "--workdir", "/tmp", "NAME", "sh", "-c", "id -u; pwd"),
    ("pause", "NAME"),
    ("inspect", "-f", "{{.State.Status}}", "NAME"),
    ("exec", "NAME", "true"),
    ("unpause", "NAME"),
    ("unpause", "NAME"),
    ("update", "--memory=300m", "--memory-swap=300m", "NAME"),
    ("inspect", "-f", "{{.HostConfig.Memory}}", "NAME"),
    ("top", "NAME", "-o", "user"),
    ("logs", "NAME"),
    ("kill", "-s", "NONSENSE", "NAME"),
    ("rm", "NAME"),
    ("stop", "-t", "20", "NAME"),
    ("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}} {{.State.OOMKilled}}", "NAME"),
    ("wait", "NAME"),
    ("start", "NAME"),
    ("kill", "NAME"),
    ("wait", "NAME"),
    ("start", "NAME"),
    ("restart", "-t", "0", "NAME"),
    ("rm", "-f", "NAME"),
)


def test_every_verb_answers_as_without_us(node: Node, runtimes: tuple[str, str]) -> None:
    """The same exit code, output and complaint, one verb after the other; the grant stays one throughout."""

    def answers(runtime: str, memory: str | None) -> list[tuple[object, ...]]:
        with container(node, runtime, memory, "sh", "-c", SHELL) as name:
            id = node.container_id(name)
            given = []
            for words in VERBS:
                done = node.docker(*(name if word == "NAME" else word for word in words), check=False)
                said = [
                    re.sub(r"\b[0-9a-f]{64}\b", "ID", text).replace(id, "ID").replace(name, "NAME")
                    for text in (done.stdout, done.stderr)
                ]
                given.append((words, done.returncode, *said))
                assert len(node.ps()) <= 1
            return given

    alone, ours = runtimes
    assert answers(ours, whole(node)) == answers(alone, None)


def test_attach_and_a_signal(node: Node, runtimes: tuple[str, str]) -> None:
    """Who is attached sees what the container prints, and gets its exit code."""
    for runtime, memory in zip(runtimes, (None, whole(node)), strict=True):
        with container(node, runtime, memory, "sh", "-c", SHELL) as name:
            attached = node.engine.popen("attach", "--no-stdin", name)
            node.docker("kill", "-s", "HUP", name)
            node.until(functools.partial(has_logged, node, name, "hup"))
            node.docker("kill", "-s", "TERM", name)
            assert attached.wait(timeout=60) == 3
        node.until(lambda: not node.ps())


def has_logged(node: Node, name: str, text: str) -> bool:
    return text in node.docker("logs", name).stdout


def test_a_storm_of_restarts_has_one_grant(node: Node, runtimes: tuple[str, str]) -> None:
    """Docker uses the id again within 100 ms. Each time the whole GPU is asked for, and granted."""
    with container(node, runtimes[1], whole(node)) as name:
        tokens = set()
        for _ in range(50 if LONG else 4):
            assert node.docker("restart", "-t", "0", name, check=False).returncode == 0, node.tail()
            (row,) = node.ps()
            tokens.add(row["token"])
        assert len(tokens) == (50 if LONG else 4)
        node.docker("stop", "-t", "0", name)
        node.until(lambda: not node.ps())
        node.docker("start", name)
        assert len(node.ps()) == 1
    node.until(lambda: not list((node.run_dir / "grants").iterdir()))


def test_a_crash_loop_neither_leaks_nor_starves(node: Node, runtimes: tuple[str, str]) -> None:
    """`--restart=always` on what ends at once: each start gets the whole GPU again."""
    options = ["--restart=always"]
    with container(node, runtimes[1], whole(node), "sh", "-c", "exit 1", options=options) as name:
        wanted = 8 if LONG else 3
        count = ("inspect", "-f", "{{.RestartCount}} {{.State.Error}}", name)
        node.until(lambda: int(node.docker(*count).stdout.split()[0]) >= wanted)
        assert "GP1" not in node.docker(*count).stdout
        assert len(node.ps()) <= 1
    node.until(lambda: not node.ps() and not list((node.run_dir / "grants").iterdir()))


def test_a_committed_image_knows_nothing_of_us(node: Node, runtimes: tuple[str, str], tmp_path: Path) -> None:
    """Beside empty places where something was mounted; it runs without us, and with a grant of its own."""
    image = "gpuportion-committed"
    with container(node, runtimes[1], "1G") as name:
        node.docker("exec", name, "sh", "-c", "echo mine > /mine")
        node.docker("cp", f"{name}:/mine", str(tmp_path / "mine"))
        node.docker("cp", str(tmp_path / "mine"), f"{name}:/copied")
        assert (tmp_path / "mine").read_text() == "mine\n"
        node.docker("commit", name, image)
    try:
        shown = node.docker("image", "inspect", image).stdout
        assert "gpuportion/" not in shown and "LD_PRELOAD" not in shown and "NVIDIA" not in shown
        node.docker("save", "-o", str(tmp_path / "image.tar"), image)
        for path, size in newest_layer(tmp_path / "image.tar").items():
            assert size == 0 or path in ("mine", "copied"), path
        command = ["sh", "-c", "cat /copied; env; ls -a /.gpuportion"]
        done = node.docker("run", "--rm", "--network=none", f"--runtime={runtimes[0]}", image, *command)
        assert done.stdout.startswith("mine\n") and "LD_PRELOAD" not in done.stdout
        assert "ld.so" not in done.stderr
        again = ["-e", "GPU_MEMORY_LIMIT=1G", f"--runtime={runtimes[1]}", image, "cat", "/copied"]
        assert node.docker("run", "--rm", "--network=none", *again).stdout == "mine\n"
    finally:
        node.docker("rmi", image, check=False)


def newest_layer(archive: Path) -> dict[str, int]:
    """Size of each file of the last layer of a `docker save`."""
    with tarfile.open(archive) as tar:
        listed = tar.extractfile("manifest.json")
        assert listed is not None
        (manifest,) = json.load(listed)
        with tarfile.open(fileobj=tar.extractfile(manifest["Layers"][-1])) as layer:
            return {member.name: member.size for member in layer if member.isfile()}


# Who is killed


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def init(node: Node, name: str) -> int:
    return int(node.docker("inspect", "-f", "{{.State.Pid}}", name).stdout)


def state(node: Node, name: str) -> str:
    return node.docker("inspect", "-f", "{{.State.Status}}", name).stdout.strip()


def test_a_shim_that_is_killed_takes_container_and_grant_along(node: Node, runtimes: tuple[str, str]) -> None:
    """containerd deletes by force; then the container can be started again, with all of the GPU."""
    with container(node, runtimes[1], whole(node)) as name:
        os.kill(parent(init(node, name)), signal.SIGKILL)
        node.until(lambda: not node.ps())
        node.until(lambda: state(node, name) == "exited")
        node.docker("start", name)
        assert len(node.ps()) == 1


@contextlib.contextmanager
def live_restore(node: Node, wanted: bool) -> Iterator[None]:
    before = dict(node.engine.settings)
    node.engine.settings["live-restore"] = wanted
    reload(node)
    try:
        yield
    finally:
        node.engine.settings = before
        reload(node)


def kill(node: Node, which: int) -> None:
    """0: containerd, 1: dockerd."""
    process = node.engine._processes[which]
    process.kill()
    process.wait()


def start_again(node: Node, which: int) -> None:
    folder, engine = node.engine.folder, node.engine
    words: tuple[tuple[str, list[str]], ...] = (
        ("containerd", ["--config", f"{folder}/containerd.toml"]),
        ("dockerd", ["--config-file", engine.config_file, "--containerd", f"{folder}/containerd.sock"]),
    )
    engine._spawn(*words[which])
    engine._processes[which] = engine._processes.pop()
    node.until(lambda: node.docker("info", check=False).returncode == 0)


def test_a_dockerd_that_is_killed_releases_nothing_that_lives(node: Node) -> None:
    """With live-restore the container and its grant are there throughout, also for exec, and end as ever."""
    with live_restore(node, True), container(node, "gpuportion", whole(node)) as name:
        (before,) = node.ps()
        kill(node, 1)
        assert [row["token"] for row in node.ps()] == [before["token"]]
        start_again(node, 1)
        assert state(node, name) == "running"
        with node.exec_session(name) as client:
            assert client.alloc(600 * MB) == "CUDA_SUCCESS"
        assert [row["token"] for row in node.ps()] == [before["token"]]
    node.until(lambda: not node.ps())


def test_a_container_that_ends_while_dockerd_is_dead_is_released_at_once(node: Node) -> None:
    """Nobody calls delete before dockerd is back; the process's end is enough."""
    with live_restore(node, True), container(node, "gpuportion", whole(node)) as name:
        pid = init(node, name)
        kill(node, 1)
        os.kill(pid, signal.SIGKILL)
        node.until(lambda: not node.ps())
        start_again(node, 1)
        node.until(lambda: state(node, name) == "exited")
        node.docker("start", name)
        assert len(node.ps()) == 1


def test_a_containerd_that_is_killed_releases_nothing_that_lives(node: Node) -> None:
    """Shim and container go on without it; when it is back the container ends as ever."""
    with container(node, "gpuportion", whole(node)) as name:
        (before,) = node.ps()
        kill(node, 0)
        assert [row["token"] for row in node.ps()] == [before["token"]]
        start_again(node, 0)
        node.until(lambda: node.docker("exec", name, "true", check=False).returncode == 0)
        assert [row["token"] for row in node.ps()] == [before["token"]]
    node.until(lambda: not node.ps())
