"""Which GPUs have the MIG role, over restarts, and what a GPU's mode means for it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gpuportion.allocator.mig import modes
from gpuportion.allocator.mig.roles import KeptRoles
from gpuportion.allocator.mig.seen import MigReading
from gpuportion.errors import GpuportionError

A, B = "GPU-a", "GPU-b"


def test_a_role_outlives_who_gave_it(tmp_path: Path) -> None:
    """Each change is on the disk when the call returns; others keep theirs."""
    roles = KeptRoles(str(tmp_path / "state"))
    roles.give([A, B])
    roles.take([A, "GPU-that-never-had-it"])
    again = KeptRoles(str(tmp_path / "state"))
    assert [again.has_mig_role(uuid) for uuid in (A, B)] == [False, True]
    assert [one.name for one in (tmp_path / "state").iterdir()] == ["roles.json"]


def test_without_a_file_nobody_has_the_role(tmp_path: Path) -> None:
    """And none is made by looking."""
    assert not KeptRoles(str(tmp_path)).has_mig_role(A)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"mig": {}}', '{"mig": [1]}', '{"mig": ["0"]}', '{"gpus": []}', "[" * 100_000],
    ids=["empty", "cut", "a-list", "no-list", "a-number", "an-index", "no-mig", "deep"],
)
def test_a_file_that_is_not_understood_is_never_taken_for_none(tmp_path: Path, text: str) -> None:
    """GPUs would serve otherwise than the administrator said."""
    (tmp_path / "roles.json").write_text(text)
    with pytest.raises(GpuportionError, match="Mend it, or remove it") as refusal:
        KeptRoles(str(tmp_path))
    assert refusal.value.code == "GP307" and f"{tmp_path}/roles.json" in str(refusal.value)


def test_a_role_that_could_not_be_kept_is_not_given(tmp_path: Path) -> None:
    """What is on the disk and what is known agree."""
    (tmp_path / "roles.json.new").mkdir()
    roles = KeptRoles(str(tmp_path))
    with pytest.raises(OSError):
        roles.give([A])
    assert not roles.has_mig_role(A)


def test_what_is_kept_can_be_read_by_people(tmp_path: Path) -> None:
    """UUIDs, in order."""
    KeptRoles(str(tmp_path)).give([B, A])
    assert json.loads((tmp_path / "roles.json").read_text()) == {"mig": [A, B]}


def reading(mode: bool, pending: bool, trouble: str = "") -> MigReading:
    return MigReading(mode, pending, at=0.0, trouble=trouble)


@pytest.mark.parametrize(
    ("role", "found", "says"),
    [
        (True, reading(True, True), ""),
        (True, reading(True, False), ""),
        (
            True,
            reading(False, True),
            "is on after a reset of the GPU: systemctl stop gpuportiond; nvidia-smi --gpu-reset -i 3;",
        ),
        (True, reading(False, False), "switched on as soon as nobody uses the GPU"),
        (True, reading(True, True, "NVML says no"), "NVML says no"),
        (True, None, "board or driver have no MIG"),
        (False, reading(False, False), ""),
        (False, reading(False, True), ""),
        (False, reading(True, True), "set-role --mig-enabled --gpu 3"),
        (
            False,
            reading(True, False),
            "is off after a reset of the GPU: systemctl stop gpuportiond; nvidia-smi --gpu-reset -i 3;",
        ),
        (False, reading(False, False, "NVML says no"), ""),
        (False, None, ""),
    ],
)
def test_a_gpu_says_why_it_can_serve_nobody(role: bool, found: MigReading | None, says: str) -> None:
    """Every combination of role, mode and what is pending; "" where it serves."""
    told = modes.trouble(3, role, found)
    assert says in told and bool(says) == bool(told)


def test_only_a_mode_that_went_by_itself_is_switched_on_again() -> None:
    """Not one that waits for a reset, nor without the role."""
    assert modes.to_switch_on(True, reading(False, False))
    for role, found in ((True, reading(False, True)), (True, reading(True, True)), (True, None)):
        assert not modes.to_switch_on(role, found)
    assert not modes.to_switch_on(False, reading(False, False))


@pytest.mark.parametrize(
    ("mode", "pending", "on", "off"),
    [
        (True, True, True, False),
        (False, False, False, True),
        (True, False, False, False),
        (False, True, False, False),
    ],
)
def test_a_mode_stays_where_nothing_is_pending(mode: bool, pending: bool, on: bool, off: bool) -> None:
    """One that waits for a reset stays neither on nor off."""
    assert (modes.stays_on(reading(mode, pending)), modes.stays_off(reading(mode, pending))) == (on, off)


def test_a_mode_is_shown_with_what_a_reset_makes_of_it() -> None:
    """One word where nothing is pending."""
    shown = [
        modes.shown(one) for one in (reading(True, True), reading(False, False), reading(False, True), None)
    ]
    assert shown == ["on", "off", "off, on after a reset", ""]
