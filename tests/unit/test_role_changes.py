"""Giving the MIG role and taking it: who is in the way, what is written down, and what the driver makes of it."""

from __future__ import annotations

import dataclasses
import select
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from gpuportion.allocator.devices import Gpu
from gpuportion.allocator.gpu_users import Users
from gpuportion.allocator.mig.node import MigNode
from gpuportion.allocator.mig.roles import KeptRoles
from gpuportion.allocator.mig.seen import MigReading, Seen
from gpuportion.allocator.mig.workers import Workers
from gpuportion.allocator.pending import Steps, Wait, drive
from gpuportion.allocator.role_changes import RoleChanges, Switched
from gpuportion.errors import GpuportionError

OFF, ON = MigReading(False, False, at=0.0), MigReading(True, True, at=0.0)
PENDING, PENDING_OFF = MigReading(False, True, at=0.0), MigReading(True, False, at=0.0)
ROW = dict[str, Any]


class Machine:
    """GPUs whose driver does as `does` says of each: the reading after a switch, and why it is not as asked."""

    def __init__(self, folder: Path, **readings: MigReading | None) -> None:
        self.readings = {f"GPU-{name}": reading for name, reading in readings.items()}
        self.gpus = [
            Gpu(i, uuid, "NVIDIA A100", 40 << 30, links={"a": 1}) for i, uuid in enumerate(self.readings)
        ]
        self.does: dict[str, tuple[MigReading, str]] = {}
        self.users: dict[str, Users] = {}
        self.switched: list[tuple[str, bool]] = []
        self.cleared: list[str] = []
        self.kept: list[str] = []
        self.roles = KeptRoles(str(folder))
        self.node = MigNode(self.roles)
        self.workers = Workers()
        self.changes = RoleChanges(
            self.roles,
            self.node,
            self.workers,
            users=lambda uuid: self.users.get(uuid, Users()),
            clear=self._clear,
            switch=self._switch,
            read=lambda uuid: self.readings[uuid],
        )
        self.look()

    def look(self) -> None:
        """A sample comes."""
        self.node.update(self.gpus, {uuid: one for uuid, one in self.readings.items() if one is not None})

    def _switch(self, uuid: str, on: bool) -> Switched:
        self.switched.append((uuid, on))
        after, why = self.does.get(uuid, (ON if on else OFF, ""))
        self.readings[uuid] = dataclasses.replace(after, at=1e12)
        return after.mode, after.pending, why

    def _clear(self, uuid: str) -> Steps[tuple[Sequence[object], Sequence[object]]]:
        self.cleared.append(uuid)
        yield from ()
        return [], self.kept

    def run(self, steps: Steps[list[ROW]]) -> list[ROW]:
        return self.end(drive(_caught(steps)))

    def end(self, wait: Wait[list[ROW] | GpuportionError]) -> list[ROW]:
        while not wait.is_over:
            assert select.select([self.workers.wake], [], [], 60)[0]
            self.workers.take()
        found: list[list[ROW] | GpuportionError] = []
        wait.then(found.append)
        if isinstance(found[0], GpuportionError):
            raise found[0]
        return found[0]

    def give(self, *words: str) -> list[ROW]:
        return self.run(self.changes.give(self.gpus, words))

    def take(self, *words: str) -> list[ROW]:
        return self.run(self.changes.take(self.gpus, words))

    @property
    def having(self) -> list[str]:
        return [gpu.uuid for gpu in self.gpus if self.roles.has_mig_role(gpu.uuid)]


def _caught(steps: Steps[list[ROW]]) -> Steps[list[ROW] | GpuportionError]:
    """As the daemon's operations do: after the first wait nobody else could."""
    try:
        return (yield from steps)
    except GpuportionError as refusal:
        return refusal


def shown(rows: Sequence[ROW]) -> list[tuple[int, str, str]]:
    return [(row["index"], row["role"], row["mig"]) for row in rows]


def test_a_gpu_gets_the_role_and_the_mode(tmp_path: Path) -> None:
    """And gives both back; a GPU that is not named keeps what it has."""
    machine = Machine(tmp_path, a=OFF, b=OFF)
    assert shown(machine.give("0")) == [(0, "mig", "on")]
    assert machine.having == ["GPU-a"] and machine.switched == [("GPU-a", True)]
    assert shown(machine.take("GPU-a")) == [(0, "fraction", "off")]
    assert machine.having == [] and machine.cleared == ["GPU-a"]


def test_without_words_all_that_can_have_it_get_it(tmp_path: Path) -> None:
    """A board without MIG is passed over, and refused where it is named."""
    machine = Machine(tmp_path, a=OFF, without=None, b=ON)
    assert shown(machine.give()) == [(0, "mig", "on"), (2, "mig", "on")]
    assert machine.switched == [("GPU-a", True)], "the mode of the other was on already"
    with pytest.raises(GpuportionError, match="GPU 1 was not changed: its board, or its driver, has no MIG"):
        machine.give("1")
    assert shown(machine.take()) == [(0, "fraction", "off"), (2, "fraction", "off")]


def test_a_word_that_means_no_gpu_changes_nothing(tmp_path: Path) -> None:
    """A typing mistake is not taken for all."""
    machine = Machine(tmp_path, a=OFF)
    with pytest.raises(GpuportionError, match="--gpu=7 matches no GPU"):
        machine.give("0", "7")
    assert machine.having == []
    nothing = Machine(tmp_path, a=None)
    with pytest.raises(GpuportionError, match="none of them has MIG"):
        nothing.give()
    with pytest.raises(GpuportionError, match="none of them has the MIG role"):
        nothing.take()


def test_a_gpu_in_use_is_refused_with_who_uses_it(tmp_path: Path) -> None:
    """And no other one is changed either."""
    machine = Machine(tmp_path, a=OFF, b=OFF)
    machine.users["GPU-b"] = Users(("train", "jupyter-ann"), ("pid 41 Xorg",))
    with pytest.raises(
        GpuportionError, match="GPU 1 was not changed: it is in use by train, jupyter-ann, pid 41 Xorg"
    ):
        machine.give()
    assert machine.having == [] and machine.switched == []


def test_processes_in_instances_of_others_do_no_harm(tmp_path: Path) -> None:
    """Where the mode is on already, nothing has to be switched."""
    machine = Machine(tmp_path, a=ON)
    machine.users["GPU-a"] = Users((), ("pid 41 python",))
    assert shown(machine.give("0")) == [(0, "mig", "on")]


def test_where_a_reset_is_needed_the_role_stays_and_it_is_said(tmp_path: Path) -> None:
    """What to do, with the GPU's index."""
    machine = Machine(tmp_path, a=OFF)
    machine.does["GPU-a"] = (PENDING, "the GPU has to be reset first")
    (row,) = machine.give("0")
    assert shown([row]) == [(0, "mig", "off, on after a reset")]
    assert "nvidia-smi --gpu-reset -i 0" in row["note"]
    assert machine.having == ["GPU-a"]


def test_what_waits_for_a_reset_is_called_off(tmp_path: Path) -> None:
    """Else the next reset, whoever does it, gives a mode that does not belong to the role any more."""
    machine = Machine(tmp_path, a=OFF)
    machine.does["GPU-a"] = (PENDING, "the GPU has to be reset first")
    machine.give("0")
    del machine.does["GPU-a"]
    assert shown(machine.take("0")) == [(0, "fraction", "off")]
    machine.readings["GPU-a"] = ON
    machine.look()
    machine.give("0")
    machine.does["GPU-a"] = (PENDING_OFF, "the GPU has to be reset first")
    assert shown(machine.take("0")) == [(0, "fraction", "on, off after a reset")]
    del machine.does["GPU-a"]
    assert shown(machine.give("0")) == [(0, "mig", "on")]


def test_what_the_driver_refuses_is_as_before(tmp_path: Path) -> None:
    """The role that had been written down is taken back; one that it had before is not."""
    machine = Machine(tmp_path, a=OFF, b=OFF)
    machine.does["GPU-b"] = (OFF, "somebody has the GPU open")
    with pytest.raises(
        GpuportionError, match="GPU 1 was not changed: its MIG mode could not be switched on: somebody"
    ):
        machine.give()
    assert machine.having == ["GPU-a"]
    machine.roles.give(["GPU-b"])
    with pytest.raises(GpuportionError, match="could not be switched on"):
        machine.give("1")
    assert machine.having == ["GPU-a", "GPU-b"]


def test_the_role_is_kept_while_containers_have_instances(tmp_path: Path) -> None:
    """With their names, and a few of many."""
    machine = Machine(tmp_path, a=ON)
    machine.give()
    machine.users["GPU-a"] = Users(tuple(f"c{number}" for number in range(11)))
    with pytest.raises(
        GpuportionError, match="it has instances of c0, c1, c2, c3, c4, c5, c6, c7 and 3 more"
    ):
        machine.take()
    assert machine.having == ["GPU-a"] and not machine.cleared


def test_with_instances_of_others_the_mode_stays_on(tmp_path: Path) -> None:
    """Removing them is not for us; the GPU then serves nobody, and says so."""
    theirs = dataclasses.replace(ON, instances=(Seen(1, 9, 0, 4),))
    machine = Machine(tmp_path, a=theirs)
    machine.give()
    (row,) = machine.take()
    assert (row["role"], row["mig"]) == ("fraction", "on")
    assert "an instance is there that others made" in row["note"]
    assert machine.switched == []
    machine.readings["GPU-a"] = ON
    machine.look()
    assert shown(machine.take("0")) == [(0, "fraction", "off")], "named again, when they are gone"
    with pytest.raises(GpuportionError, match="it does not have the MIG role"):
        machine.take("0")


def test_a_mode_that_went_with_a_reboot_is_switched_on_again(tmp_path: Path) -> None:
    """Once nobody uses the GPU, and not again and again where the driver won't."""
    machine = Machine(tmp_path, a=ON, b=OFF)
    machine.roles.give(["GPU-a"])
    machine.readings["GPU-a"] = OFF
    machine.look()
    machine.users["GPU-a"] = Users((), ("pid 41 python",))
    machine.changes.mend(machine.gpus)
    assert machine.switched == []
    machine.users.clear()
    machine.does["GPU-a"] = (OFF, "somebody has the GPU open")
    for _ in range(3):
        machine.changes.mend(machine.gpus)
        while not machine.node.is_still("GPU-a"):
            assert select.select([machine.workers.wake], [], [], 60)[0]
            machine.workers.take()
    assert machine.switched == [("GPU-a", True)]


@pytest.mark.parametrize(("first", "mode", "role"), [("take", ON, "fraction"), ("give", OFF, "mig")])
def test_of_one_gpu_one_change_is_made_at_a_time(
    tmp_path: Path, first: str, mode: MigReading, role: str
) -> None:
    """Whoever asks meanwhile is told so, the other GPU is free to change, and the first comes to its own end."""
    machine = Machine(tmp_path, a=mode, b=OFF)
    if first == "take":
        machine.roles.give(["GPU-a"])
    begun = drive(_caught(getattr(machine.changes, first)(machine.gpus, ["0"])))
    assert not begun.is_over, "the driver is at it"
    for again in (machine.give, machine.take):
        with pytest.raises(GpuportionError, match="of GPU 0 was not changed: its role is being changed"):
            again("0")
    assert shown(machine.give("1")) == [(1, "mig", "on")]
    assert shown(machine.end(begun)) == [(0, role, "on" if role == "mig" else "off")]
    assert shown(machine.give("0")) == [(0, "mig", "on")]
