"""Beside NVIDIA's own ways of giving a container GPUs: with our request it has its grant and nothing else.

Each container is compared with one that has our request alone: device nodes, cgroup rules, mounts, hooks and
environment are counted. There are two simulated GPUs, so that one too many shows. NVIDIA's programs are
stand-ins; that they would do harm is tested first.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest
from tests.support import bundle, engines
from tests.support.container_view import View, keeper, view
from tests.support.node import IMAGE, MB, Node
from tests.support.nvidia_host import (
    IMAGE_OF_NVIDIA,
    Host,
    NvidiaPodman,
    docker_version,
    made_image,
    runtimes_of,
)
from tests.support.nvidia_toolkit import RUNTIMES, Toolkit

from gpuportion import paths

pytestmark = pytest.mark.containers

HARMLESS: Final = re.compile(r"NVIDIA_DRIVER_CAPABILITIES=|NVIDIA_REQUIRE_|CUDA_VERSION=")
"""Environment that widens nothing once NVIDIA's hooks are gone, and that programs read."""


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    if os.geteuid() != 0:
        pytest.skip("needs root: starts dockerd and mounts")
    runc = bundle.low_level("runc")
    if reason := engines.missing("dockerd", "runc", "nsenter"):
        pytest.skip(reason)
    assert runc is not None
    before = os.environ.get("GPUPORTION_RUN_DIR")
    folder = Path(tempfile.mkdtemp(prefix="gpuportion-n-", dir="/tmp"))
    (folder / "kept").mkdir()
    own_runc = keeper(folder / "runc", runc, folder / "kept")
    toolkit = Toolkit(folder / "nvidia", own_runc)
    node = Node(folder / "node", "a100-80gb:2")
    has_cdi = docker_version() >= (25,)
    node.engine.runtimes = runtimes_of(folder, toolkit)
    node.engine.settings = {"default-runtime": "nvidia-container-runtime"}
    if has_cdi:
        node.engine.settings |= {"features": {"cdi": True}, "cdi-spec-dirs": [str(toolkit.cdi)]}
    node.engine.daemon_env |= {
        "PATH": f"{toolkit.folder}:{os.environ['PATH']}:/usr/sbin:/sbin",
        "GPUPORTION_RUNTIME": own_runc,
    }
    try:
        node.start()
        toolkit.write_cdi(node.run_dir / "cdi/nvidia.com-gpu.json")
        made_image(node)
        yield Host(node, toolkit, folder / "kept", has_cdi)
    finally:
        node.stop()
        shutil.rmtree(folder, ignore_errors=True)
        if before is not None:
            os.environ["GPUPORTION_RUN_DIR"] = before


@pytest.fixture(scope="module")
def alone(host: Host) -> View:
    """A container with our request and nothing of NVIDIA's."""
    with host.container(["--runtime=gpuportion"]) as seen:
        return seen


@pytest.fixture(autouse=True)
def nothing_stays(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "host" in request.fixturenames:
        node = request.getfixturevalue("host").node
        node.until(lambda: not node.ps())


def test_a_request_alone_gives_one_gpu_and_no_more(host: Host, alone: View) -> None:
    """What all others are compared with: counted here once."""
    of_driver = [node for node in alone.nodes if node.startswith("/dev/nvidia")]
    assert [node.split()[0] for node in of_driver] == ["/dev/nvidia-uvm", "/dev/nvidia0", "/dev/nvidiactl"]
    assert "/dev/nvidia0 c 195:0" in of_driver
    kernel = [rule for rule in alone.rules if rule.startswith("kernel c 195:")]
    assert kernel in ([], ["kernel c 195:0 rwm", "kernel c 195:255 rwm"])  # none: cgroup v2 shows no rules
    said = [json.loads(rule.removeprefix("spec ")) for rule in alone.rules if rule.startswith("spec ")]
    assert sorted(rule["minor"] for rule in said if rule.get("major") == 195) == [0, 255]
    hooks = [hook for hook in alone.hooks if "libnetwork-setkey" not in hook]  # docker's own
    assert len(hooks) == 1 and hooks[0].startswith("createRuntime ") and "gpuportion-hook" in hooks[0]
    assert [entry for entry in alone.env if entry.startswith("NVIDIA")] == ["NVIDIA_VISIBLE_DEVICES=void"]
    assert host.toolkit.ran() == []


HARM: Final = {
    "--gpus all": (["--runtime=runc", "--gpus=all"], ["nvidia-container-runtime-hook"]),
    "the default runtime": ([], ["nvidia-container-runtime", "nvidia-container-runtime-hook"]),
}


@pytest.mark.parametrize("way", HARM)
def test_without_us_the_stand_ins_give_what_was_not_granted(host: Host, alone: View, way: str) -> None:
    """Or their absence in the other tests would say nothing."""
    options, programs = HARM[way]
    done = host.node.docker("run", "-d", "--network=none", *options, IMAGE, "sleep", "3600")
    name = done.stdout.strip()
    try:
        listed = host.node.docker("exec", name, "ls", "/dev").stdout.split()
    finally:
        host.node.docker("rm", "-f", name)
    assert {"nvidia1", "of-nvidia"} <= set(listed)
    assert host.toolkit.ran() == programs


WAYS: Final[Mapping[str, Sequence[str]]] = {
    "--gpus all": ["--gpus=all"],
    "--gpus of another GPU": ["--gpus=device=1"],
    "--gpus with capabilities": ["--gpus=all,capabilities=utility"],
    "env all": ["-e", "NVIDIA_VISIBLE_DEVICES=all"],
    "env none": ["-e", "NVIDIA_VISIBLE_DEVICES=none"],
    "env void": ["-e", "NVIDIA_VISIBLE_DEVICES=void"],
    "env empty": ["-e", "NVIDIA_VISIBLE_DEVICES="],
    "env an index": ["-e", "NVIDIA_VISIBLE_DEVICES=1"],
    "env a UUID": ["-e", "NVIDIA_VISIBLE_DEVICES=UUID"],
    "env of MIG": [
        "-e",
        "NVIDIA_MIG_CONFIG_DEVICES=all",
        "-e",
        "NVIDIA_MIG_MONITOR_DEVICES=all",
        "-e",
        "NVIDIA_IMEX_CHANNELS=0",
    ],
    "a request as a mount": ["-v", "/dev/null:/var/run/nvidia-container-devices/all"],
    "MPS": [
        *("-e", "CUDA_MPS_PIPE_DIRECTORY=/tmp/nvidia-mps", "-e", "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE=100"),
        *("-e", "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT=0=80G", "-v", "/tmp:/tmp/nvidia-mps"),
    ],
    "another GPU's node": ["--device=SIM/dev/nvidia1:/dev/nvidia1", "--device=SIM/dev/nvidia1:/dev/other"],
    "all nodes of the driver by rule": ["--device-cgroup-rule=c 195:* rwm"],
    "files of the driver": [
        "-v",
        "DRIVER:/usr/lib/x86_64-linux-gnu/libcuda.so.1",
        "-v",
        "DRIVER:/usr/bin/nvidia-smi",
    ],
    "the simulated driver's state": ["-v", "SIM/state:/dev/gpuportion-sim"],
}
ALL_OF_THEM: Final = [
    option for options in WAYS.values() for option in options if option != "--gpus=device=1"
]


def has_its_grant_and_nothing_else(host: Host, alone: View, seen: View) -> None:
    beyond = seen.beyond(alone)
    env = [entry for entry in beyond.pop("env", ()) if not HARMLESS.match(entry)]
    assert (beyond, env) == ({}, [])
    assert alone.beyond(seen) == {}
    assert host.toolkit.ran() == []


@pytest.mark.parametrize("way", WAYS)
def test_what_nvidia_was_asked_for_is_not_given(host: Host, alone: View, way: str) -> None:
    """By docker's options and the environment; `nvidia` is docker's default runtime all the while."""
    with host.container(["--runtime=gpuportion", *host.words(WAYS[way])]) as seen:
        has_its_grant_and_nothing_else(host, alone, seen)


def test_what_an_image_asks_of_nvidia_is_not_given(host: Host, alone: View) -> None:
    """Its environment says all GPUs, as that of every CUDA image does."""
    with host.container(["--runtime=gpuportion"], image=IMAGE_OF_NVIDIA) as seen:
        has_its_grant_and_nothing_else(host, alone, seen)
        assert "NVIDIA_DRIVER_CAPABILITIES=all" in seen.env, "programs read it"


def test_all_of_it_at_once_and_the_cap_holds(host: Host, alone: View) -> None:
    """What of one way might hide another; and a program gets its portion, no more."""
    options = host.words(ALL_OF_THEM)
    with host.container(["--runtime=gpuportion", *options], image=IMAGE_OF_NVIDIA) as seen:
        has_its_grant_and_nothing_else(host, alone, seen)
    with host.node.session("1G", options=options, image=IMAGE_OF_NVIDIA) as talk:
        assert talk.opened == "CUDA_SUCCESS"
        assert talk.alloc(600 * MB) == "CUDA_SUCCESS"
        assert talk.alloc(600 * MB) == "CUDA_ERROR_OUT_OF_MEMORY"


def test_a_rule_for_all_devices_is_not_held_back(host: Host, alone: View) -> None:
    """docs/engines.md says so: it is left, and with it nothing else comes."""
    with host.container(["--runtime=gpuportion", "--device-cgroup-rule=c *:* rwm"]) as seen:
        beyond = seen.beyond(alone)
        assert beyond.keys() == {"rules"}
        assert all("*:* rwm" in rule or '"minor": -1' in rule for rule in beyond["rules"]), beyond


def test_as_dockers_default_runtime_too(host: Host, alone: View) -> None:
    """No runtime is named; without a request a container has what NVIDIA's tools give, as ever."""
    with host.default_runtime("gpuportion"):
        with host.container(["--gpus=all"]) as seen:
            has_its_grant_and_nothing_else(host, alone, seen)
        with host.container(["--gpus=all"], memory=None) as seen:
            assert "/dev/nvidia1 c 195:1" in seen.nodes
            assert host.toolkit.ran() == ["nvidia-container-runtime-hook"]


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_what_nvidias_runtime_put_in_before_us_goes(host: Host, alone: View, runtime: str) -> None:
    """Where it is the engine's, and its own low-level runtime is ours: it edits first."""
    ours, options = paths.package_file("bin/gpuportion-runtime"), [f"--runtime={runtime}", "--gpus=all"]
    with host.next_runtime(ours), host.container(options) as seen:
        assert host.toolkit.ran() == [runtime]
        has_its_grant_and_nothing_else(host, alone, seen)


@pytest.mark.parametrize("over", [*RUNTIMES, "link"])
def test_nvidias_runtime_is_never_what_we_become(host: Host, over: str) -> None:
    """It would edit after us. docker shows the sentence, also where only a link called runc leads to it."""
    for memory in ("1G", None):
        done = host.node.docker_run(memory, runtime=f"over-{over}", command=["true"])
        assert done.returncode != 0
        assert "GP310" in done.stderr and "the NVIDIA runtime would hand over whole GPUs" in done.stderr
        assert "GPUPORTION_RUNTIME=/usr/sbin/runc" in done.stderr, "the way out"
    assert host.toolkit.ran() == []


CDI: Final = {"all": ["all"], "a UUID": ["UUID"], "twice": ["0", "1"]}


def devices(names: Sequence[str]) -> list[str]:
    return [f"--device=nvidia.com/gpu={name}" for name in names]


@pytest.mark.parametrize("way", CDI)
def test_what_docker_adds_by_cdi_goes(host: Host, alone: View, way: str) -> None:
    """Device nodes, mounts and hooks of a specification that says more than our own of the GPUs does."""
    if not host.has_cdi:
        pytest.skip("needs docker 25 or newer (make test-long fetches one)")
    with host.container(["--runtime=gpuportion", *host.words(devices(CDI[way]))]) as seen:
        has_its_grant_and_nothing_else(host, alone, seen)


@pytest.fixture(scope="module", params=["runc", "crun"])
def podman(
    request: pytest.FixtureRequest, host: Host, short_folder: Path, root_folder: Path
) -> Iterator[NvidiaPodman]:
    """podman before one low-level runtime."""
    low_level = request.param
    lacking = bundle.low_level(low_level) is None and f"needs {low_level}"
    if reason := engines.missing("podman", "conmon", "unshare") or lacking:
        pytest.skip(reason)
    folder = short_folder / f"nvidia-{low_level}"
    folder.mkdir()
    (folder / "own").mkdir()
    own = keeper(folder / low_level, engines.low_level(folder / "own", low_level), host.kept)
    made = NvidiaPodman(folder, root_folder, engines.launcher_of(folder, host.node, own), host.toolkit)
    if objection := made.objection(engines.low_level(folder / "own", low_level)):
        pytest.skip(objection)
    yield made


@contextmanager
def podman_container(
    podman: NvidiaPodman, host: Host, options: Sequence[str], memory: str | None = "1G"
) -> Iterator[View]:
    with podman.container(
        f"gpuportion-test-{os.getpid()}", [*podman.options(memory=memory), *options]
    ) as name:
        asked = podman.command("inspect", "--format={{.State.Pid}} {{.Id}}", name)
        pid, identity = podman.done(asked).stdout.split()
        yield view(int(pid), host.kept / identity)


@pytest.fixture(scope="module")
def alone_in_podman(podman: NvidiaPodman, host: Host) -> View:
    with podman_container(podman, host, []) as seen:
        return seen


def test_podmans_ways_do_harm_without_us(podman: NvidiaPodman, host: Host, alone_in_podman: View) -> None:
    """The other GPU by CDI, and the hooks: without a request nothing of it is held back."""
    options = [podman.hooks_d, *devices(["all"])]
    with podman_container(podman, host, options, memory=None) as seen:
        assert "/dev/nvidia1 c 195:1" in seen.nodes
    assert set(host.toolkit.ran()) == {"nvidia-container-toolkit", "nvidia-cdi-hook", "nvidia-ctk"}


@pytest.mark.parametrize("way", CDI)
def test_what_podman_adds_by_cdi_and_hooks_goes(
    podman: NvidiaPodman, host: Host, alone_in_podman: View, way: str
) -> None:
    """With the toolkit's hooks.d at the same time."""
    options = [podman.hooks_d, *host.words(devices(CDI[way])), "--env=NVIDIA_VISIBLE_DEVICES=all"]
    with podman_container(podman, host, options) as seen:
        has_its_grant_and_nothing_else(host, alone_in_podman, seen)
