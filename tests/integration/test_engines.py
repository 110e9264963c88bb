"""The capped container under podman and `ctr`, with runc and with crun: real engines, a simulated GPU."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support import engines
from tests.support.engines import CLIENT_COMMAND, Engine, Podman
from tests.support.node import MB, Node
from tests.support.session import CudaSession

pytestmark = pytest.mark.containers

NUMBERS = itertools.count()


@pytest.fixture(scope="module", params=engines.WITH_EACH_RUNTIME, ids="-".join)
def engine(
    request: pytest.FixtureRequest, running_node: Node, root_folder: Path, short_folder: Path
) -> Iterator[Engine]:
    """One engine before one low-level runtime, on a folder of its own."""
    kind, low_level = request.param
    with engines.one(
        kind, low_level, running_node, root_folder, short_folder / f"{kind}-{low_level}"
    ) as made:
        yield made


@pytest.fixture
def name() -> str:
    return f"gpuportion-test-{os.getpid()}-{next(NUMBERS)}"


def is_held_to_its_grant(client: CudaSession) -> None:
    """600 MB of 1 GB, and not 600 MB more; the refusal is said where the user looks."""
    assert client.opened == "CUDA_SUCCESS"
    assert client.alloc(600 * MB) == "CUDA_SUCCESS"
    assert client.alloc(600 * MB) == "CUDA_ERROR_OUT_OF_MEMORY"
    assert "GP201" in client.end()


def test_a_request_by_env_is_granted_and_held(engine: Engine, node: Node, name: str) -> None:
    """The first process of a container; nothing is left when it has ended."""
    with engine.session(engine.run(name, engine.options(memory="1G"), *CLIENT_COMMAND)) as client:
        assert len(node.ps()) == 1
        is_held_to_its_grant(client)
    node.until(lambda: not node.ps())


def test_a_request_by_annotation_holds_for_exec_too(engine: Engine, node: Node, name: str) -> None:
    """A process that joins later; nothing is left when the container is removed."""
    with engine.container(name, engine.options(annotation="1G")):
        with engine.session(engine.execute(name, *CLIENT_COMMAND)) as client:
            is_held_to_its_grant(client)
        (row,) = node.ps()
        assert row["gpus"][0]["limit"] == 10**9 // (1 << 20) * (1 << 20)
    node.until(lambda: not node.ps())
    node.until(lambda: not list((node.run_dir / "grants").iterdir()))
    assert str(node.run_dir / "grants") not in Path("/proc/mounts").read_text()


def test_a_refusal_is_what_the_user_reads(engine: Engine, node: Node, name: str) -> None:
    """The whole sentence, by either way to ask."""
    for way, key in (("memory", "GPU_MEMORY_LIMIT"), ("annotation", "gpuportion.io/memory-limit")):
        done = engine.done(engine.run(name, engine.options(**{way: "4000"}), "/usr/bin/true"))
        assert done.returncode != 0
        assert f"GP102 {key}=4000 has no unit. Write 4000M, 4G or 4Gi." in done.stderr
        for command in engine.remove(name):
            engine.done(command)


def test_a_create_that_fails_gives_the_grant_back(engine: Engine, node: Node, name: str) -> None:
    """A command that is not there: the low-level runtime refuses after the reservation."""
    done = engine.done(engine.run(name, engine.options(memory="1G"), "/does-not-exist"))
    assert done.returncode != 0 and "does-not-exist" in done.stderr
    for command in engine.remove(name):
        engine.done(command)
    node.until(lambda: not node.ps())


def test_podman_knows_our_runtime_and_still_its_own(short_folder: Path) -> None:
    """The drop-in among podman's real files, with its default runtime as before."""
    if reason := engines.missing("podman", "conmon", "unshare"):
        pytest.skip(reason)
    folder = short_folder / "podman-files"
    podman = Podman(folder, folder, "/usr/bin/true")
    script = f'mount --bind {folder} /etc/containers && exec "$0" "$@"'
    asked = ["info", "--format={{.Host.OCIRuntime.Name}} {{.Host.OCIRuntime.Path}}"]
    own = [f"--root={folder}/root", f"--runroot={folder}/runroot", "--cgroup-manager=cgroupfs"]
    for runtime, path in (("gpuportion", "/usr/bin/true"), ("runc", "/usr/bin/runc")):
        command = ["unshare", "--mount", "sh", "-c", script, "podman", *own, f"--runtime={runtime}", *asked]
        done = podman.done(command)
        assert done.stdout.split() == [runtime, path], done.stderr
