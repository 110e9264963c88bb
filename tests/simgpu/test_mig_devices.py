"""MIG devices as CUDA sees them: their memory, their name, who sees which, and who stands in the way."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from gpuportion import simgpu
from gpuportion.simgpu import Behaviour, Sim, mig, state
from gpuportion.simgpu.costs import DEFAULTS
from tests.simgpu.conftest import Start
from tests.simgpu.driver import MIB, NO_DEVICE, OUT, OUT_OF_MEMORY, SUCCESS, Driver, driver
from tests.simgpu.nvml import CLIENT as NVML_CLIENT
from tests.simgpu.nvml import Nvml
from tests.simgpu.test_devices import needs_namespaces
from tests.simgpu.test_telemetry import needs, run

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: MIG is changed by root alone")
CONTEXT = DEFAULTS["context"]
ON = Behaviour(mig=True)
SMS = 16
"""CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT."""


@pytest.fixture
def a100(start: Start) -> Sim:
    """An A100 with 40 GB in MIG mode."""
    return start("a100-40gb", behaviour=ON)


@pytest.fixture
def nvml(a100: Sim) -> Iterator[Nvml]:
    with Nvml(a100) as nvml:
        yield nvml


def two(nvml: Nvml, i: int = 0) -> tuple[str, str]:
    """UUIDs of a 2g.10gb at 0 (instance 3) and a 1g.5gb at 6 (instance 13)."""
    nvml.ask(f"create(14, 0, i={i})")
    nvml.ask(f"create(19, 6, i={i})")
    return nvml.ask(f"compute(3, 1, i={i})")[1], nvml.ask(f"compute(13, 0, i={i})")[1]


def names(cuda: Driver) -> list[str]:
    """Of all devices that a process sees."""
    if cuda.do("cuInit", 0):
        return []
    shown = [cuda.ask(call="cuDeviceGetName", args=[{"hex": "00" * 96}, 96, i]) for i in range(count(cuda))]
    return [bytes.fromhex(said["after"][0]).rstrip(b"\0").decode() for said in shown]


def count(cuda: Driver) -> int:
    _, devices = cuda.call("cuDeviceGetCount", {"out32": 1})
    return devices


def uuid_of(cuda: Driver, call: str) -> str:
    return cuda.fill(call, 16, 0)


def test_a_mig_device_is_a_gpu_of_its_own(a100: Sim, nvml: Nvml) -> None:
    """Name, memory, multiprocessors and UUID of the partition; the older call says the board's UUID."""
    small = two(nvml)[1]
    with driver(a100, CUDA_VISIBLE_DEVICES=small) as cuda:
        assert names(cuda) == ["NVIDIA A100-SXM4-40GB MIG 1g.5gb"]
        assert cuda.do("cuDeviceTotalMem_v2", OUT, 0) == 4864 * MIB
        assert cuda.do("cuDeviceGetAttribute", OUT, SMS, 0) == 14
        assert uuid_of(cuda, "cuDeviceGetUuid_v2") == small.removeprefix("MIG-").replace("-", "")
        board = a100.devices[0].uuid.removeprefix("GPU-").replace("-", "")
        assert uuid_of(cuda, "cuDeviceGetUuid") == board


def test_instances_have_memory_of_their_own(a100: Sim, nvml: Nvml) -> None:
    """One that is full leaves its neighbour what it has; NVML says who holds what of which."""
    large, small = two(nvml)
    with driver(a100, CUDA_VISIBLE_DEVICES=large) as one, driver(a100, CUDA_VISIBLE_DEVICES=small) as other:
        one.open().alloc(9000 * MIB)
        assert one.call("cuMemAlloc_v2", OUT, 1000 * MIB)[0] == OUT_OF_MEMORY
        assert other.open().info() == (4864 * MIB - CONTEXT, 4864 * MIB)
        other.alloc(4000 * MIB)
        held, less = 9000 * MIB + CONTEXT, 4000 * MIB + CONTEXT
        assert nvml.ask(f"processes(by('{large}'))") == [[one.process.pid, held, 3, 0]]
        assert nvml.ask(f"processes(by('{small}'))") == [[other.process.pid, less, 13, 0]]
        assert nvml.ask("sorted(processes(device()))") == sorted(
            [[one.process.pid, held, 3, 0], [other.process.pid, less, 13, 0]]
        )
        used = "[n.nvmlDeviceGetMemoryInfo(d).used for d in (mig(0), mig(1), device())]"
        assert nvml.ask(used) == [held, less, held + less + a100.devices[0].reserved]
        assert {(h.instance, h.bytes) for h in state.holders(a100.state)} == {(3, held), (13, less)}
        one.kill()
        assert nvml.ask(used)[0] == 0


def test_compute_instances_share_their_memory(a100: Sim, nvml: Nvml) -> None:
    """And NVML tells their processes apart."""
    nvml.ask("create(9, 4)")
    uuids = [nvml.ask(f"compute(1, 0, {start})")[1] for start in (0, 1)]
    with (
        driver(a100, CUDA_VISIBLE_DEVICES=uuids[0]) as one,
        driver(a100, CUDA_VISIBLE_DEVICES=uuids[1]) as two,
    ):
        one.open().alloc(1000 * MIB)
        assert two.open().info() == (19968 * MIB - 1000 * MIB - 2 * CONTEXT, 19968 * MIB)
        assert two.do("cuDeviceGetAttribute", OUT, SMS, 0) == 14
        assert nvml.ask("processes(mig(0))") == [[one.process.pid, 1000 * MIB + CONTEXT, 1, 0]]
        assert nvml.ask("processes(mig(1))") == [[two.process.pid, CONTEXT, 1, 1]]


def test_a_process_keeps_its_instance(a100: Sim, nvml: Nvml) -> None:
    """From cuInit to its end nobody removes it; other instances come and go meanwhile."""
    large, _ = two(nvml)
    with driver(a100, CUDA_VISIBLE_DEVICES=large) as cuda:
        cuda.do("cuInit", 0)
        assert nvml.refusal("destroy_compute(3)") == "InUse"
        nvml.ask("destroy_compute(13)")
        nvml.ask("destroy(13)")
        assert nvml.ask("create(19, 5)") == 12
        with pytest.raises(Exception, match="in use"):
            mig.reset(a100.state, 0)
        cuda.kill()
        nvml.ask("destroy_compute(3)")
        nvml.ask("destroy(3)")


def test_what_a_dead_process_held_is_not_the_next_ones(a100: Sim, nvml: Nvml) -> None:
    """An instance made again under the same id has all of its memory."""
    large, _ = two(nvml)
    with driver(a100, CUDA_VISIBLE_DEVICES=large) as cuda:
        cuda.open().alloc(9000 * MIB)
        cuda.kill()
    nvml.ask("clear()")
    again, _ = two(nvml)
    with driver(a100, CUDA_VISIBLE_DEVICES=again) as cuda:
        assert cuda.open().info()[0] == 9856 * MIB - CONTEXT
        cuda.alloc(9000 * MIB)


@pytest.mark.parametrize(
    ("version", "wanted", "seen"),
    [
        ("610.43.02", None, ["2g.10gb", "1g.5gb", "board"]),
        ("610.43.02", "{small},{board}", ["1g.5gb", "board"]),
        ("610.43.02", "{large},{large}", ["2g.10gb"]),
        ("610.43.02", "1", ["1g.5gb"]),
        ("610.43.02", "MIG-nothing", []),
        ("610.43.02", "{parent}", []),
        ("610.43.02", "MIG-{parent}/13/0", ["1g.5gb"]),
        ("610.43.02", "MIG-{parent}/12/0", []),
        ("550.54.14", None, ["2g.10gb"]),
        ("550.54.14", "{small},{large}", ["1g.5gb"]),
        ("550.54.14", "{small},{board}", ["1g.5gb"]),
        ("550.54.14", "{board},{small}", ["board"]),
    ],
)
def test_a_process_sees_the_mig_devices_that_it_names(
    start: Start, version: str, wanted: str | None, seen: list[str]
) -> None:
    """Before driver 570 one, and no board beside it."""
    sim = start("a100-40gb,t4-16gb", behaviour=Behaviour(mig=True, driver=version))
    with Nvml(sim) as nvml:
        large, small = two(nvml)
        parent, board = (device.uuid for device in sim.devices)
        env = (
            {}
            if wanted is None
            else {"CUDA_VISIBLE_DEVICES": wanted.format(large=large, small=small, parent=parent, board=board)}
        )
        with driver(sim, **env) as cuda:
            result, *_ = cuda.call("cuInit", 0)
            assert result == (SUCCESS if seen else NO_DEVICE)
            shown = names(cuda) if seen else []
            assert [name.rpartition("MIG ")[2].replace("Tesla T4", "board") for name in shown] == seen


def test_a_board_without_instances_has_nothing_for_cuda(a100: Sim) -> None:
    """MIG mode alone takes the board away."""
    with driver(a100) as cuda:
        assert cuda.call("cuInit", 0)[0] == NO_DEVICE


def test_mig_devices_do_not_reach_each_other(a100: Sim, nvml: Nvml) -> None:
    """No peer access, not even on one board."""
    two(nvml)
    with driver(a100) as cuda:
        cuda.do("cuInit", 0)
        assert count(cuda) == 2
        assert cuda.call("cuDeviceCanAccessPeer", {"out32": 1}, 0, 1) == (SUCCESS, 0)


@pytest.mark.clients
def test_nvitop_shows_mig_devices(a100: Sim, nvml: Nvml) -> None:
    """Once, unmodified: each with its ids and memory, and its process."""
    needs("nvitop")
    large, _ = two(nvml)
    with driver(a100, CUDA_VISIBLE_DEVICES=large) as cuda:
        cuda.open().alloc(1024 * MIB)
        text = run(a100, "-m", "nvitop", "--once", "--no-unicode")
    assert "2g.10gb @ GI/CI: 3/0" in text and "1g.5gb @ GI/CI:13/0" in text
    (line,) = (line for line in text.splitlines() if f" {cuda.process.pid} " in line)
    assert f" {(1024 * MIB + CONTEXT) // MIB}MiB " in line, text


# ------- in containers


def boxed(sim: Sim, *nodes: str) -> tuple[list[str], dict[str, str]]:
    """A command that starts another where /dev has those of the simulation's nodes, as a container's; its env."""
    binds = "\n".join(f"bind {node}" for node in nodes)
    script = f"""
        box={sim.directory}/box
        mkdir -p $box
        mount -t tmpfs none $box
        bind() {{ mkdir -p $(dirname $box/$1); cp -a {sim.directory}/dev/$1 $box/$1; }}
        {binds}
        touch $box/gpuportion-sim
        mount --bind {sim.state} $box/gpuportion-sim
        mount --rbind $box /dev
        exec "$@"
    """
    env = {"LD_LIBRARY_PATH": sim.lib, "GPUPORTION_SIM_STATE": ""}
    return ["unshare", "--mount", "sh", "-ec", dedent(script), "sh"], env


@pytest.fixture
def outside(tmp_path_factory: pytest.TempPathFactory, libraries: Path) -> Iterator[Sim]:
    """An A100 in MIG mode, in a folder of root's."""
    folder = f"/run/gpuportion-test-mig-{os.getpid()}"
    yield simgpu.start("a100-40gb", folder, cdi_dir=None, libraries=str(libraries), behaviour=ON)
    simgpu.stop(folder, None)


@needs_namespaces
def test_in_a_container_the_capabilities_say_what_is_there(outside: Sim) -> None:
    """Both nodes of a MIG device, or it is not seen; and without the config capability nothing is changed."""
    with Nvml(outside) as nvml:
        _, small = two(nvml)
        simgpu.refresh(outside, None)
        (part,) = (found for found in mig.devices(outside.state) if found.uuid == small)
        caps = [f"nvidia-caps/nvidia-cap{minor}" for minor in part.minors]
        for nodes, there in (([*caps], 1), (caps[:1], 0), ([], 0)):
            wrap, env = boxed(outside, "nvidia0", "nvidiactl", *nodes)
            with Nvml(outside, env=env, wrap=wrap) as inside:
                shown = f"[n.nvmlDeviceGetUUID(mig(i)) for i in range({there})]"
                assert inside.ask(shown) == [small][:there]
                assert inside.refusal(f"mig({there})") == "NotFound"
                assert inside.refusal("create(19, 5)") == inside.refusal("capacity(19)") == "NoPermission"
                for aggregate in ("n.nvmlDeviceGetMemoryInfo(device())", "processes(device())"):
                    assert inside.refusal(aggregate) == "NoPermission", "that of all instances together"
            with Driver({**env}, command=wrap) as cuda:
                assert cuda.call("cuInit", 0)[0] == (SUCCESS if there else NO_DEVICE)
                if there:
                    assert names(cuda) == ["NVIDIA A100-SXM4-40GB MIG 1g.5gb"]


@needs_namespaces
def test_the_config_capability_lets_a_container_change_instances(outside: Sim) -> None:
    """So nobody's container may have it."""
    wrap, env = boxed(outside, "nvidia0", "nvidia-caps/nvidia-cap1")
    with Nvml(outside, env=env, wrap=wrap) as inside:
        assert inside.ask("create(19, 5)") == 12
        assert inside.ask("instances()") == [[12, 19, 5, 1]]


# ------- who dies


def test_a_death_leaves_no_instance_half_made(a100: Sim) -> None:
    """Processes killed while they make and remove instances: what is there is legal, and all can be made again."""
    loop = "clear()\nprint(flush=True)\nwhile True:\n    create(14, 0)\n    compute(3, 1)\n    clear()"
    verbs = f"import runpy, pynvml\npynvml.nvmlInit()\nglobals().update(runpy.run_path({str(NVML_CLIENT)!r}))"
    command = [sys.executable, "-c", f"{verbs}\n{loop}"]
    for turn in range(12):
        with subprocess.Popen(command, env={**os.environ, **a100.env()}, stdout=subprocess.PIPE) as victim:
            assert victim.stdout and victim.stdout.readline()
            time.sleep(turn * 0.0007)
            victim.kill()
    with Nvml(a100) as nvml:
        assert nvml.ask("instances()") in ([], [[3, 14, 0, 2]])
        nvml.ask("clear()")
        assert len([nvml.ask(f"create(14, {start})") for start in (0, 2, 4)]) == 3
