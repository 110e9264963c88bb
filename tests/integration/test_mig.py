"""MIG instances into real containers: made on demand, seen by nobody else, kept when idle; roles; mixed nodes."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from tests.support.node import MB, PYTHON, Node
from tests.support.session import CudaSession

from gpuportion import client, simgpu
from gpuportion.simgpu import mig as simulated

pytestmark = pytest.mark.containers

MIB: Final = 1 << 20
BOARDS: Final = "a100-40gb:2,h100-80gb,a30-24gb,rtx-pro-6000-96gb"
A100, FRACTIONS, H100, A30, RTX = range(5)
CONTEXT: Final = 400 * MB
"""More than what a process takes of its instance by itself."""


@pytest.fixture(scope="module")
def running() -> Iterator[Node]:
    """A node with five boards, of which all but the second A100 serve by MIG."""
    folder = Path(tempfile.mkdtemp(prefix="gpuportion-mig-", dir="/tmp"))
    node = Node(folder, sim=BOARDS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GPUPORTION_RUN_DIR", "")  # Node sets it; here it's given back
        try:
            node.start()
            give_roles(node)
            yield node
        finally:
            node.stop()
    shutil.rmtree(folder, ignore_errors=True)


def give_roles(node: Node) -> None:
    """The boards before Hopper need a reset, and the answer says so."""
    words = [str(index) for index in (A100, H100, A30, RTX)]
    said = node.gpuportion("node", "set-role", "--mig-enabled", "--gpu", *words).stdout.splitlines()
    needed = [line.partition("on after a reset: gpuportion ")[2].split() for line in said]
    assert [bool(words) for words in needed] == [True, False, True, False], said
    for reset in filter(None, needed):
        node.gpuportion(*reset)
    node.until(lambda: all(gpu(node, int(index))["health"] == "ok" for index in words))
    folders = ["--directory", sim(node).directory, "--cdi-dir", str(node.run_dir / "cdi")]
    node.gpuportion("sim", "refresh", *folders)  # the CDI spec is one of MIG mode


@pytest.fixture
def node(running: Node) -> Iterator[Node]:
    """Each test finds it without instances and grants."""
    yield running
    running.until(lambda: not running.ps())
    client.ask("mig-gc")
    assert instances(running) == []


def sim(node: Node) -> simgpu.Sim:
    found = simgpu.status(str(node.run_dir / "sim"))
    assert found is not None
    return found.sim


def gpu(node: Node, index: int) -> dict[str, Any]:
    rows: list[dict[str, Any]] = client.ask("node").head["gpus"]
    return rows[index]


def instances(node: Node) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(node.gpuportion("mig", "list", "--json").stdout)["instances"]
    return rows


def asking(**keys: str) -> list[str]:
    """`docker run`'s words for a request."""
    return [word for key, value in keys.items() for word in ("-e", f"GPU_{key}={value}")]


def session(node: Node, *options: str, **keys: str) -> Any:
    return node.session(None, options=[*asking(**keys), *options])


@pytest.mark.parametrize(
    ("index", "asked", "profile", "mebibytes"),
    [
        (A100, "4G", "1g.5gb", 4864),
        (A100, "10G", "1g.10gb", 9856),
        (H100, "20G", "1g.20gb", 20096),
        (A30, "6G", "1g.6gb", 5952),
        (RTX, "24G", "1g.24gb", 24192),
    ],
)
def test_a_request_for_memory_gets_the_smallest_instance(
    node: Node, index: int, asked: str, profile: str, mebibytes: int
) -> None:
    """Inside it is the GPU: its memory in CUDA and in NVML, and out of memory at its end."""
    with session(node, MEMORY_LIMIT=asked, SELECT=str(index), ROLE="mig") as cuda:
        assert cuda.opened == "CUDA_SUCCESS"
        total = cuda.ask("info")["device_total"]
        assert total == pytest.approx(mebibytes * MIB, rel=0.02), "by the tables that others printed"
        assert cuda.alloc(total - CONTEXT) == "CUDA_SUCCESS"
        assert cuda.alloc(CONTEXT) == "CUDA_ERROR_OUT_OF_MEMORY"
        seen = cuda.ask("mig")
        ((part),) = seen["parts"].values()
        assert part["total"] == total and list(part["processes"]) == [str(cuda.pid)]
        assert seen["boards"] == 1 and seen["aggregate"] is False
        assert [name.endswith(f"MIG {profile}") for name in seen["cuda"]] == [True]
        (grant,) = node.ps()
        assert (grant["enforced_by"], grant["gpus"][0]["index"]) == ("mig", index)
        assert grant["gpus"][0]["limit"] == total
        node.until(lambda: node.ps()[0]["gpus"][0]["used"] > total - CONTEXT)
    node.until(lambda: [one["state"] for one in instances(node)] == ["idle"])


def test_two_containers_on_one_gpu_see_nothing_of_each_other(node: Node) -> None:
    """Each its own instance, by its own two capability nodes; a third one by docker exec."""
    with (
        node.container(None, options=asking(MIG="2g.10gb", SELECT="0")) as one,
        node.container(None, options=asking(MIG="1g.5gb", SELECT="0")) as two,
    ):
        with node.exec_session(one) as large, node.exec_session(two) as small:
            for talk, name, total in ((large, "2g.10gb", 9856 * MIB), (small, "1g.5gb", 4864 * MIB)):
                seen = talk.ask("mig")
                assert len(seen["parts"]) == 1 and seen["cuda"] == [f"NVIDIA A100-SXM4-40GB MIG {name}"]
                assert talk.ask("info")["device_total"] == total
            assert large.alloc(9000 * MB) == "CUDA_SUCCESS"
            assert small.alloc(4000 * MB) == "CUDA_SUCCESS"
            ((part),) = small.ask("mig")["parts"].values()
            assert part["used"] < 4864 * MIB and list(part["processes"]) == [str(small.pid)]
        used = {line: caps(node, line) for line in (one, two)}
        assert not used[one] & used[two]
        devices = {found.uuid: set(found.minors) for found in simulated.devices(sim(node).state)}
        assert sorted(map(sorted, used.values())) == sorted(map(sorted, devices.values()))


def caps(node: Node, name: str) -> set[int]:
    """Minors of the capability nodes in a container, which are those that its device rules let in."""
    listed = node.docker("exec", name, "ls", "/dev/nvidia-caps").stdout.split()
    minors = {int(entry.removeprefix("nvidia-cap")) for entry in listed}
    nodes = node.docker("exec", name, "ls", "/dev").stdout.split()
    assert [entry for entry in nodes if re.fullmatch("nvidia[0-9]+", entry)] == ["nvidia0"]
    assert len(minors) == 2 and not minors & {simulated.CONFIG, simulated.MONITOR}
    pid = node.docker("inspect", "-f", "{{.State.Pid}}", name).stdout.strip()
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "devices":
            rules = Path(f"/sys/fs/cgroup/devices{path}/devices.list").read_text()
            assert {int(minor) for minor in re.findall(r"^c 510:(\d+) r$", rules, re.MULTILINE)} == minors
            assert not re.search(r"^[ac] (510|195|\*):\* .*[rw]", rules, re.MULTILINE)
    return minors


def test_a_neighbours_node_can_be_made_and_not_used(node: Node) -> None:
    """docker lets containers make nodes; the device rules say which can be opened."""
    with (
        node.container(None, options=asking(MIG="1g.5gb", SELECT="0")) as one,
        node.container(None, options=asking(MIG="1g.5gb", SELECT="0")) as two,
    ):
        for minor in (*caps(node, one), simulated.CONFIG, simulated.MONITOR):
            make = f"import os; os.mknod('/dev/nvidia-caps/nvidia-cap{minor}', 0o020666, os.makedev(510, {minor}))"
            made = node.docker("exec", two, PYTHON, "-c", make)
            assert made.returncode == 0, made.stderr
        with node.exec_session(two) as cuda:
            seen = cuda.ask("mig")
            assert len(seen["parts"]) == len(seen["cuda"]) == 1 and not seen["aggregate"]


def test_nothing_of_ours_is_in_the_container(node: Node) -> None:
    """The GPU holds it: no library, no preload, no folder; and the image's choice of devices is kept."""
    options = [*asking(MIG="1g.5gb"), "-e", "CUDA_VISIBLE_DEVICES=0", "-e", "LD_PRELOAD=/own.so"]
    with node.container(None, options=options) as name:
        pid = node.docker("inspect", "-f", "{{.State.Pid}}", name).stdout.strip()
        env = Path(f"/proc/{pid}/environ").read_text().split("\0")
        assert {"LD_PRELOAD=/own.so", "CUDA_VISIBLE_DEVICES=0", "NVIDIA_VISIBLE_DEVICES=void"} <= {*env}
        assert not Path(f"/proc/{pid}/root/.gpuportion").exists()
        assert "libcap" not in Path(f"/proc/{pid}/mountinfo").read_text()
        with node.exec_session(name, "-e", "LD_PRELOAD=") as cuda:
            assert cuda.opened == "CUDA_SUCCESS"


def test_a_container_that_brings_other_devices_has_its_instance_alone(node: Node) -> None:
    """Whole GPUs and the right to make instances, by docker's own --device."""
    dev = f"{sim(node).directory}/dev"
    taken = [f"--device={dev}/{path}:/dev/{path}" for path in ("nvidia1", "nvidia-caps/nvidia-cap1")]
    with session(node, *taken, MIG="1g.5gb", SELECT="0") as cuda:
        seen = cuda.ask("mig")
        assert (seen["boards"], len(seen["parts"]), seen["aggregate"]) == (1, 1, False)


def test_an_idle_instance_is_used_again_evicted_or_collected(node: Node) -> None:
    """By the same profile, by one that needs its room, or at once by `mig gc`."""

    def uuid(profile: str) -> str:
        with session(node, MIG=profile, SELECT="0") as cuda:
            (found,) = cuda.ask("mig")["parts"]
        node.until(lambda: not node.ps())
        return str(found)

    first = uuid("4g.20gb")
    assert uuid("4g.20gb") == first
    assert [(one["profile"], one["state"]) for one in instances(node)] == [("4g.20gb", "idle")]
    whole = uuid("7g.40gb")
    assert whole != first and [one["profile"] for one in instances(node)] == ["7g.40gb"]
    table = node.gpuportion("mig", "list").stdout
    assert "7g.40gb" in table and "idle" in table and whole in table
    assert node.gpuportion("mig", "gc").stdout == "removed 7g.40gb at 0 of GPU 0\n"
    assert node.gpuportion("mig", "gc").stdout == "no idle instance is there\n"
    assert simulated.devices(sim(node).state) == []


def test_refusals_reach_the_terminal(node: Node) -> None:
    """With what there is instead; nothing is made for them."""
    for keys, words in (
        ({"MIG": "2g.20gb", "SELECT": "0"}, ['GP103 unknown MIG profile "2g.20gb"', "1g.5gb", "7g.40gb"]),
        (
            {"MIG": "2g.10gb", "MEMORY_LIMIT": "16G", "SELECT": "0"},
            ["GP104 GPU_MIG=2g.10gb conflicts", "9856 MiB"],
        ),
        ({"MEMORY_LIMIT": "60G", "ROLE": "mig", "SELECT": "0"}, ["GP105", "7g.40gb"]),
        ({"MIG": "1g.5gb", "COUNT": "2"}, ["GP107 GPU_COUNT=2"]),
        ({"MIG": "1g.5gb", "SELECT": str(FRACTIONS)}, ["GP107 GPU_SELECT=1"]),
    ):
        done = node.docker_run(options=asking(**keys), command=["true"])
        assert done.returncode == 125
        assert all(word in done.stderr for word in words), done.stderr
    assert instances(node) == [] and node.ps() == []


def test_a_full_gpu_names_its_holders(node: Node) -> None:
    """And what would fit."""
    with node.container(None, options=asking(MIG="4g.20gb", SELECT="0"), name="the-big-one") as name:
        done = node.docker_run(options=asking(MIG="7g.40gb", SELECT="0"), command=["true"])
        short = node.container_id(name)[:12]
    assert done.returncode == 125 and "GP101" in done.stderr
    assert (short in done.stderr or name in done.stderr) and "4g.20gb" in done.stderr


def test_compute_is_asked_for_in_per_cent(node: Node) -> None:
    """`gpuportion run --gpu-compute 30` is three of seven slices."""
    words = ["run", "--gpu-memory", "4G", "--gpu-compute", "30", "--gpu-select", "0", "--dry-run", "image"]
    command = node.gpuportion(*words).stdout.split()
    asked = {word for word in command if word.startswith("GPU_")}
    assert asked == {"GPU_MEMORY_LIMIT=4G", "GPU_COMPUTE=30", "GPU_SELECT=0"}
    with session(node, MEMORY_LIMIT="4G", COMPUTE="30", SELECT="0") as cuda:
        assert cuda.ask("mig")["cuda"] == ["NVIDIA A100-SXM4-40GB MIG 3g.20gb"]


def test_a_mixed_node_serves_both_ways(node: Node) -> None:
    """Memory alone takes the fraction; a profile takes MIG; each is held by its own means."""
    with node.session("4G", options=asking(SELECT="*A100*")) as fraction, session(node, MIG="1g.5gb") as part:
        ways = {grant["enforced_by"]: grant["gpus"][0]["index"] for grant in node.ps()}
        assert ways["interposer"] == FRACTIONS and ways["mig"] != FRACTIONS
        assert fraction.ask("info")["device_total"] == 3814 * MIB
        assert fraction.alloc(3900 * MIB) == part.alloc(4900 * MIB) == "CUDA_ERROR_OUT_OF_MEMORY"
        table = node.gpuportion("ps").stdout
        assert " mig " in table and " interposer " in table
        roles = [row["role"] for row in client.ask("node").head["gpus"]]
        assert roles == ["mig", "fraction", "mig", "mig", "mig"]
    room = f"{node.gpuportion('node').stdout}"
    assert "mig" in room and "fraction" in room


def test_where_fractions_have_no_room_mig_serves_memory_too(node: Node) -> None:
    """One request, either way."""
    with (
        node.container("30G", options=asking(SELECT=str(FRACTIONS))),
        node.session("16G", options=asking(SELECT="0,1")) as cuda,
    ):
        assert cuda.ask("mig")["cuda"] == ["NVIDIA A100-SXM4-40GB MIG 3g.20gb"]


def test_roles_and_instances_outlive_the_daemon(node: Node) -> None:
    """A running container keeps its instance while the daemon restarts; then it is still granted, and in use."""
    with session(node, MIG="2g.10gb", SELECT="0") as cuda:
        with node.daemon_down():
            assert cuda.alloc(1000 * MB) == "CUDA_SUCCESS"
        (grant,) = node.ps()
        assert grant["enforced_by"] == "mig"
        (one,) = instances(node)
        assert (one["state"], one["profile"]) == ("in-use", "2g.10gb")
        node.until(lambda: gpu(node, A100)["health"] == "ok")
        assert [row["role"] for row in client.ask("node").head["gpus"]].count("mig") == 4
        assert node.docker_run(options=asking(MIG="1g.5gb", SELECT="0"), command=["true"]).returncode == 0


def test_a_restarted_container_has_an_instance_again(node: Node) -> None:
    """The same one, since nobody else took it."""
    with node.container(None, options=asking(MIG="1g.5gb", SELECT="0")) as name:
        (before,) = simulated.devices(sim(node).state)
        node.docker("restart", "-t", "0", name)
        node.until(lambda: [one["state"] for one in instances(node)].count("in-use") == 1)
        with node.exec_session(name) as cuda:
            assert len(cuda.ask("mig")["cuda"]) == 1
        assert before.uuid in {found.uuid for found in simulated.devices(sim(node).state)}


def refused(node: Node, *words: str) -> str:
    with pytest.raises(subprocess.CalledProcessError) as problem:
        node.gpuportion("node", *words)
    return str(problem.value.stderr)


def test_a_role_is_not_taken_from_who_uses_it(node: Node) -> None:
    """Nor given where fractions are in use; the names are said."""
    with node.container(None, options=asking(MIG="1g.10gb", SELECT=str(H100))) as name:
        short = node.container_id(name)[:12]
        text = refused(node, "remove-role", "--mig-enabled", "--gpu", str(H100))
        assert "GP112" in text and (name in text or short in text)
    with node.container("4G", options=asking(SELECT=str(FRACTIONS))) as name:
        short = node.container_id(name)[:12]
        text = refused(node, "set-role", "--mig-enabled", "--gpu", str(FRACTIONS))
        assert "GP112" in text and (name in text or short in text)
    assert "this host is" in refused(node, "set-role", "--mig-enabled", "another-host")


def test_a_hopper_gpu_changes_its_role_at_once(node: Node) -> None:
    """With an idle instance on it, which goes; then it serves fractions, and MIG again. Nobody writes a CDI spec."""
    with session(node, MIG="1g.10gb", SELECT=str(H100)):
        pass
    node.until(lambda: not node.ps())
    said = node.gpuportion("node", "remove-role", "--mig-enabled", "--gpu", str(H100)).stdout
    assert said == "GPU 2 (NVIDIA H100 80GB HBM3) has the role fraction; MIG mode is off\n"
    (spec,) = (node.run_dir / "cdi").iterdir()
    whole = {device["name"] for device in json.loads(spec.read_text())["devices"]}
    assert sim(node).devices[H100].uuid not in whole, "the specification was written in MIG mode"
    try:
        with node.session("4G", options=asking(SELECT=str(H100))) as cuda:
            assert cuda.ask("info")["device_total"] == 3814 * MIB
        node.until(lambda: not node.ps())
    finally:
        said = node.gpuportion("node", "set-role", "--mig-enabled", "--gpu", str(H100)).stdout
    assert said == "GPU 2 (NVIDIA H100 80GB HBM3) has the role mig; MIG mode is on\n"
    with session(node, MIG="1g.10gb", SELECT=str(H100)) as talk:
        assert isinstance(talk, CudaSession) and talk.opened == "CUDA_SUCCESS"


def test_profiles_are_listed_with_their_room(node: Node) -> None:
    """As the driver offers them, for each GPU that has MIG."""
    table = node.gpuportion("mig", "profiles").stdout
    assert "2g.10gb" in table and "2g.12gb" in table and "4g.96gb+gfx" in table
    rows = json.loads(node.gpuportion("mig", "profiles", "--json").stdout)["gpus"]
    (small,) = (one for one in rows[A100]["profiles"] if one["name"] == "1g.5gb")
    assert (small["room"], small["most"]) == (7, 7)
    with node.container(None, options=asking(MIG="4g.20gb", SELECT="0")):
        rows = json.loads(node.gpuportion("mig", "profiles", "--json").stdout)["gpus"]
        (small,) = (one for one in rows[A100]["profiles"] if one["name"] == "1g.5gb")
        assert small["room"] == 3
