"""MIG by the unmodified pynvml: modes, profiles, instances, their errors, and what is on the host's /proc."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpuportion.errors import GpuportionError
from gpuportion.simgpu import Behaviour, Sim, mig
from gpuportion.simgpu.boards import BOARDS
from gpuportion.simgpu.profiles import families
from tests.simgpu.conftest import Start
from tests.simgpu.driver import driver
from tests.simgpu.nvml import Nvml

ON = Behaviour(mig=True)
MODE = "n.nvmlDeviceGetMigMode(device())"
ENABLE = "n.nvmlDeviceSetMigMode(device(), 1)"
SUCCESS, RESET_REQUIRED, IN_USE = 0, 16, 19
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: MIG is changed by root alone")
pytestmark = needs_root


@pytest.fixture
def a100(start: Start) -> Sim:
    """An A100 with 40 GB in MIG mode."""
    return start("a100-40gb", behaviour=ON)


@pytest.fixture
def nvml(a100: Sim) -> Iterator[Nvml]:
    with Nvml(a100) as nvml:
        yield nvml


@pytest.mark.parametrize("name", [name for name, board in BOARDS.items() if board.mig])
def test_nvml_lists_the_profiles_of_a_board(start: Start, name: str) -> None:
    """By index, with id, slices, counts, sizes and placements, as the table has them."""
    rows = sorted(families()[BOARDS[name].mig], key=lambda row: row.index)
    with Nvml(start(name, behaviour=ON)) as nvml:
        shown = nvml.ask("profiles()")
        assert shown == [[p.name, p.index, p.id, p.compute, p.most, p.sms, p.mib] for p in rows]
        where = nvml.ask(f"[placements(p) for p in {[p.id for p in rows]}]")
        assert where == [[[start, p.slots] for start in p.starts] for p in rows]
        assert nvml.ask(f"[capacity(p) for p in {[p.id for p in rows]}]") == [p.most for p in rows]
        assert nvml.ask("n.nvmlDeviceGetMaxMigDeviceCount(device())") == max(p.most for p in rows)
        assert nvml.refusal("n.nvmlDeviceGetGpuInstanceProfileInfo(device(), 18)") == "InvalidArgument"


def test_a_table_fits_its_boards() -> None:
    """Each family is some board's; no profile lies beyond its board's memory."""
    assert {board.mig for board in BOARDS.values()} - {""} == set(families())
    for board in BOARDS.values():
        rows = families().get(board.mig, ())
        assert all(row.mib << 20 <= board.total - board.reserved for row in rows), board.name
        slots = max((row.slots for row in rows), default=0)
        assert all(start + row.slots <= slots for row in rows for start in row.starts)


def test_both_structures_of_a_profile_agree(nvml: Nvml) -> None:
    """The first has no version and no name; the second the size that pynvml says; the third more still."""
    nvml.ask(
        "[n.nvmlDeviceGetGpuInstanceProfileInfo(device(), i, v).memorySizeMB for i in (0, 4) for v in (1, 2)]"
    )
    first = "(lambda p: [p.id, p.sliceCount, p.memorySizeMB])(n.nvmlDeviceGetGpuInstanceProfileInfo(device(), 1, {}))"
    assert nvml.ask(first.format(1)) == nvml.ask(first.format(2)) == [14, 2, 9856]
    versioned = (
        "(lambda b: [n.nvmlLib.nvmlDeviceGetGpuInstanceProfileInfoV(device(), 1, b), int.from_bytes(b.raw[4:8],"
        " 'little'), b.raw[48:60].decode()])(ctypes.create_string_buffer((0x0{}000098).to_bytes(4, 'little'), 256))"
    )
    assert nvml.ask(versioned.format(3)) == [0, 14, "MIG 2g.10gb\0"]
    assert nvml.ask(versioned.format(4))[0] == 25


def test_boards_without_mig_say_so(start: Start) -> None:
    """NOT_SUPPORTED for the mode and all that follows from it."""
    with Nvml(start("t4-16gb,a100-40gb")) as nvml:
        assert nvml.refusal(MODE) == nvml.refusal(ENABLE) == nvml.refusal("create(19)") == "NotSupported"
        assert nvml.ask("profiles()") == []
        assert nvml.refusal("create(19, i=1)") == "NotSupported"  # MIG is off
        assert len(nvml.ask("profiles(1)")) == 7


# ------- modes


def test_an_ampere_board_needs_a_reset_and_keeps_its_mode(start: Start) -> None:
    """Until the reset it is pending; over a reboot it stays, its instances do not."""
    sim = start("a100-40gb")
    with Nvml(sim) as nvml:
        assert nvml.ask(ENABLE) == RESET_REQUIRED
        assert nvml.ask(MODE) == [0, 1]
        assert nvml.refusal("create(19)") == "NotSupported"
        mig.reset(sim.state, 0)
        assert nvml.ask(MODE) == [1, 1]
        nvml.ask("create(19)")
        mig.reboot(sim.state)
        assert (nvml.ask(MODE), nvml.ask("instances()")) == ([1, 1], [])


def test_a_hopper_board_switches_at_once_and_forgets(start: Start) -> None:
    """No reset; after a reboot MIG is off."""
    sim = start("h100-80gb")
    with Nvml(sim) as nvml:
        assert nvml.ask(ENABLE) == SUCCESS
        assert nvml.ask(MODE) == [1, 1]
        nvml.ask("create(19)")
        assert nvml.ask("n.nvmlDeviceSetMigMode(device(), 0)") == IN_USE
        mig.reboot(sim.state)
        assert nvml.ask(MODE) == [0, 0]


def test_an_idle_ampere_board_can_reset_itself(start: Start) -> None:
    """As outside of virtual machines; in use, the mode stays pending."""
    sim = start("a100-40gb", behaviour=Behaviour(self_reset=True))
    with Nvml(sim) as nvml, driver(sim) as cuda:
        cuda.open()
        assert nvml.ask(ENABLE) == IN_USE
        assert nvml.ask(MODE) == [0, 1]
        with pytest.raises(GpuportionError, match="in use"):
            mig.reset(sim.state, 0)
        cuda.kill()
        assert nvml.ask(ENABLE) == SUCCESS
        assert nvml.ask(MODE) == [1, 1]


def test_a_hopper_board_in_use_keeps_its_mode(start: Start) -> None:
    """Nothing is pending."""
    sim = start("h100-80gb")
    with Nvml(sim) as nvml, driver(sim) as cuda:
        cuda.open()
        assert nvml.ask(ENABLE) == IN_USE
        assert nvml.ask(MODE) == [0, 0]


def test_only_root_changes_instances(nvml: Nvml) -> None:
    """Everybody else may look."""
    nvml.ask("create(14, 0)")
    nvml.ask("compute(3, 1)")
    nvml.ask("os.seteuid(65534)")
    for change in (ENABLE, "create(19)", "compute(3, 0)", "destroy_compute(3)", "destroy(3)"):
        assert nvml.refusal(change) == "NoPermission"
    assert nvml.ask("instances()") == [[3, 14, 0, 2]]


# ------- instances


def test_ids_are_no_ordinals(nvml: Nvml) -> None:
    """Eighths are 7 to 13 by where they lie, quarters 3 to 6; halves are 1 and 2 by age."""
    assert [nvml.ask(f"create(19, {start})") for start in (6, 0)] == [13, 7]
    assert nvml.ask("create(14, 4)") == 5
    assert nvml.ask("create(15, 2)") == 4
    nvml.ask("clear()")
    assert [nvml.ask(f"create(9, {start})") for start in (4, 0)] == [1, 2]
    nvml.ask("clear()")
    assert [nvml.ask(f"create({profile})") for profile in (19, 14, 5)] == [13, 5, 1]
    assert nvml.ask("instances()") == [[1, 5, 0, 4], [5, 14, 4, 2], [13, 19, 6, 1]]


def test_the_driver_puts_instances_last(nvml: Nvml) -> None:
    """The first 3g lies at 4, the second at 0, and there is no third."""
    assert [nvml.ask("create(9)"), nvml.ask("create(9)")] == [1, 2]
    assert nvml.ask("instances()") == [[1, 9, 4, 4], [2, 9, 0, 4]]
    assert nvml.refusal("create(9)") == nvml.refusal("create(19)") == "InsufficientResources"


@pytest.mark.parametrize(
    ("expression", "error"),
    [
        ("create(19, 0)", "InsufficientResources"),  # occupied
        ("create(14, 1)", "InvalidArgument"),  # no placement of that profile
        ("create(14, 2, 1)", "InvalidArgument"),  # nor of that size
        ("create(19, 7)", "InvalidArgument"),
        ("create(77)", "InvalidArgument"),
        ("capacity(77)", "NotSupported"),
        ("gi(4)", "NotFound"),
        ("gi(99)", "NotFound"),
        ("ci(3, 1)", "NotFound"),
        ("destroy(3)", "InUse"),  # a compute instance is in it
        ("compute(3, 1)", "InsufficientResources"),
        ("compute(3, 4)", "NotSupported"),
        ("compute(3, 0, 5)", "InvalidArgument"),
        ("mig(1)", "NotFound"),
        ("by('MIG-nobody')", "NotFound"),
        ("n.nvmlDeviceGetGpuInstanceId(device())", "NotSupported"),
        ("n.nvmlDeviceGetAttributes(device())", "NotSupported"),
        ("n.nvmlDeviceGetUtilizationRates(device())", "NotSupported"),
        ("n.nvmlDeviceGetUtilizationRates(mig(0))", "NotSupported"),
        ("n.nvmlDeviceGetMigMode(mig(0))", "NotSupported"),
    ],
)
def test_nvml_refuses_as_the_real_one(nvml: Nvml, expression: str, error: str) -> None:
    """With a 2g.10gb at 0 that has its compute instance; nothing is changed by a refusal."""
    nvml.ask("create(14, 0)")
    nvml.ask("compute(3, 1)")
    assert nvml.refusal(expression) == error
    assert (nvml.ask("instances()"), nvml.ask("computes(3, 1)")) == ([[3, 14, 0, 2]], [0])


def test_media_engines_exclude_each_other(start: Start) -> None:
    """One +me at most; +me.all leaves only those without media."""
    with Nvml(start("rtx-pro-6000-96gb", behaviour=ON)) as nvml:
        ids = {name: identity for name, _, identity, *_ in nvml.ask("profiles()")}
        plain, me, everything, none = (ids[f"1g.24gb{tail}"] for tail in ("", "+me", "+me.all", "-me"))
        nvml.ask(f"create({me}, 0)")
        assert nvml.ask(f"[capacity({me}), capacity({everything}), capacity({plain})]") == [0, 0, 3]
        assert nvml.refusal(f"create({everything}, 3)") == "InsufficientResources"
        nvml.ask("clear()")
        assert nvml.ask(f"create({everything}, 3)") == 4
        assert nvml.refusal(f"create({plain}, 0)") == "InsufficientResources"
        assert nvml.ask(f"[capacity({plain}), capacity({none}), capacity({ids['2g.48gb-me']})]") == [0, 3, 1]


def test_compute_instances_share_a_gpu_instance(nvml: Nvml) -> None:
    """Profiles, placements, names and attributes of parts; ids from 0."""
    assert nvml.ask("create(9, 4)") == 1
    infos = (
        "[(lambda p: [p.id, p.sliceCount, p.instanceCount, p.multiprocessorCount, p.name])("
        "n.nvmlGpuInstanceGetComputeInstanceProfileInfo(gi(1), i, 0)) for i in (0, 1, 2)]"
    )
    assert nvml.ask(infos) == [
        [0, 1, 3, 14, "MIG 1c.3g.20gb"],
        [1, 2, 1, 28, "MIG 2c.3g.20gb"],
        [2, 3, 1, 42, "MIG 3g.20gb"],
    ]
    left = "n.nvmlGpuInstanceGetComputeInstanceRemainingCapacity(gi(1), {})"
    assert [nvml.ask(f"compute(1, 0, {start})")[0] for start in (2, 0)] == [0, 1]
    assert [nvml.ask(left.format(i)) for i in (0, 1, 2)] == [1, 0, 0]
    names = "[n.nvmlDeviceGetName(mig(i)) for i in (0, 1)]"
    assert nvml.ask(names) == ["NVIDIA A100-SXM4-40GB MIG 1c.3g.20gb"] * 2
    attributes = (
        "(lambda a: [a.multiprocessorCount, a.gpuInstanceSliceCount, a.computeInstanceSliceCount,"
        " a.memorySizeMB])(n.nvmlDeviceGetAttributes(mig(1)))"
    )
    assert nvml.ask(attributes) == [14, 3, 1, 19968]
    assert nvml.ask("[n.nvmlDeviceGetComputeInstanceId(mig(i)) for i in (0, 1)]") == [0, 1]


def test_a_mig_device_is_a_device(nvml: Nvml, a100: Sim) -> None:
    """By index, by UUID and by its older name; it leads to its board, and has memory of its own."""
    nvml.ask("create(14, 2)")
    _, uuid = nvml.ask("compute(4, 1)")
    assert re.fullmatch(r"MIG-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", uuid)
    ids = "(lambda m: [n.nvmlDeviceGetGpuInstanceId(m), n.nvmlDeviceGetComputeInstanceId(m), n.nvmlDeviceGetUUID(m)])"
    old = f"MIG-{a100.devices[0].uuid}/4/0"
    for name in (f"by('{uuid}')", f"by('{old}')", "mig(0)"):
        assert nvml.ask(f"{ids}({name})") == [4, 0, uuid]
    assert (
        nvml.ask(
            "n.nvmlDeviceIsMigDeviceHandle(mig(0)).value + 2 * n.nvmlDeviceIsMigDeviceHandle(device()).value"
        )
        == 1
    )
    parent = "n.nvmlDeviceGetUUID(n.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(mig(0)))"
    assert nvml.ask(parent) == a100.devices[0].uuid
    assert nvml.ask("n.nvmlDeviceGetMemoryInfo(mig(0)).total") == 9856 << 20
    assert nvml.ask("n.nvmlDeviceGetCudaComputeCapability(mig(0))") == [8, 0]


def test_what_is_made_again_has_another_uuid(nvml: Nvml) -> None:
    """And the handles of the old one are stale, though the ids are the same."""
    nvml.ask("create(14, 0)")
    _, first = nvml.ask("compute(3, 1)")
    nvml.ask("globals().update(old=mig(0), old_gi=gi(3), old_ci=ci(3))")
    nvml.ask("clear()")
    nvml.ask("create(14, 0)")
    assert nvml.ask("compute(3, 1)")[1] != first
    assert nvml.refusal(f"by('{first}')") == "NotFound"
    assert nvml.refusal("n.nvmlDeviceGetName(old)") == "InvalidArgument"
    for stale in ("n.nvmlGpuInstanceDestroy(old_gi)", "n.nvmlComputeInstanceDestroy(old_ci)"):
        assert nvml.refusal(stale) == "NotFound"


# ------- drivers, faults, files


@pytest.mark.parametrize(
    ("driver_version", "mode", "listed"),
    [("535.183.01", False, 0), ("535.183.01", True, 7), ("515.86.01", True, 6), ("550.54.14", False, 7)],
)
def test_an_older_driver_offers_less(start: Start, driver_version: str, mode: bool, listed: int) -> None:
    """Before 550 nothing is listed while MIG is off; before 525 there is no profile of twice the memory."""
    with Nvml(start("a100-80gb", behaviour=Behaviour(mig=mode, driver=driver_version))) as nvml:
        assert len(nvml.ask("profiles()")) == listed
        assert nvml.ask("n.nvmlSystemGetDriverVersion()") == driver_version


def test_a_driver_older_than_the_board_has_no_mig(start: Start) -> None:
    """H200 needs 550; and 460 has no versioned structure."""
    with Nvml(start("h200-141gb,a100-40gb", behaviour=Behaviour(driver="535.183.01"))) as nvml:
        assert nvml.refusal(MODE) == "NotSupported"
        assert nvml.ask("n.nvmlDeviceGetMigMode(device(1))") == [0, 0]
    with Nvml(start("a100-40gb", behaviour=Behaviour(mig=True, driver="460.32.03"))) as nvml:
        assert nvml.refusal("n.nvmlDeviceGetGpuInstanceProfileInfo(device(), 0)") == "FunctionNotFound"
        assert nvml.ask("n.nvmlDeviceGetGpuInstanceProfileInfo(device(), 0, 1).memorySizeMB") == 4864


def test_a_teardown_can_be_partial(start: Start) -> None:
    """As told: the compute instance goes, the GPU instance is in use for two calls, and is found without it."""
    sim = start("a100-40gb", behaviour=Behaviour(mig=True, faults="nvmlGpuInstanceDestroy@1-2=19"))
    with Nvml(sim) as nvml:
        nvml.ask("create(14, 0)")
        nvml.ask("compute(3, 1)")
        nvml.ask("destroy_compute(3)")
        assert [nvml.refusal("destroy(3)") for _ in range(2)] == ["InUse", "InUse"]
        assert nvml.refusal("mig(0)") == "NotFound"
        assert nvml.ask("instances()") == [[3, 14, 0, 2]]
        nvml.ask("destroy(3)")
        assert nvml.refusal("gi(3)") == "NotFound"


def test_the_capabilities_follow_the_instances(nvml: Nvml, a100: Sim) -> None:
    """Below proc/ as on a host; mig-minors says their numbers beforehand."""
    root = Path(a100.proc, "driver")
    minors = dict(line.split() for line in (root / "nvidia-caps/mig-minors").read_text().splitlines())
    assert (minors["config"], minors["monitor"], minors["gpu0/gi1/ci0/access"]) == ("1", "2", "13")
    assert len(set(minors.values())) == len(minors) == 2 + 15 * 9
    assert "510 nvidia-caps" in Path(a100.proc, "devices").read_text()
    capabilities = root / "nvidia/capabilities"
    nvml.ask("create(9, 4)")
    nvml.ask("compute(1, 2)")
    files = {str(path.relative_to(capabilities)): path.read_text() for path in capabilities.rglob("access")}
    assert sorted(files) == ["gpu0/mig/gi1/access", "gpu0/mig/gi1/ci0/access"]
    for name, text in files.items():
        assert f"DeviceFileMinor: {minors[name.replace('mig/', '')]}\n" in text
    nvml.ask("clear()")
    assert not list(capabilities.rglob("access"))
