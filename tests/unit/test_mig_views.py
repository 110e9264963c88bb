"""What `gpuportion mig` shows: profiles with their room, instances of ours and of others, a word for each."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from tests.support.mig_boards import A30, A100_40, gpu, instance, profiles

from gpuportion.allocator.devices import Gpu
from gpuportion.allocator.mig import views
from gpuportion.allocator.mig.instances import Instance
from gpuportion.allocator.mig.node import MigNode
from gpuportion.allocator.mig.records import Phase, Record
from gpuportion.allocator.mig.roles import ByMode
from gpuportion.allocator.mig.seen import Compute, MigReading, Seen
from gpuportion.sizes import MIB

A, B, PLAIN = gpu(0).uuid, gpu(1).uuid, "GPU-plain"
READY = Record(
    1, "boot", A, 19, "1g.5gb", 4, 1, 4864 * MIB, 1, Phase.READY, gi=9, ci=0, uuid="MIG-a", token="t"
)
IDLE = dataclasses.replace(READY, key=2, start=5, gi=10, uuid="MIG-b", token="", idle_since=70.4996)
MAKING = dataclasses.replace(READY, key=3, start=6, phase=Phase.MAKING, gi=-1, ci=-1, uuid="", token="u")
REMOVING = dataclasses.replace(READY, key=4, gpu="GPU-gone", start=0, phase=Phase.REMOVING, gi=0, token="")
RECORDS = (REMOVING, MAKING, IDLE, READY)
NAMES = {"t": ("c1" * 32, "train")}
SEEN = (
    Seen(9, 19, 4, 1, (Compute(0, "MIG-a", (41, 42)),)),
    Seen(10, 19, 5, 1, (Compute(0, "MIG-b"),)),
    Seen(2, 14, 0, 2, (Compute(0, "MIG-x", (7,)),)),
    Seen(3, 99, 2, 2, (Compute(0, "MIG-y", (8,)), Compute(1, "MIG-z", (9,)))),
)


def node() -> MigNode:
    """An A100 with instances, an A30 without, and a GPU that cannot have MIG."""
    made = MigNode(ByMode())
    gpus = [
        Gpu(2, PLAIN, "NVIDIA T4", 0),
        Gpu(1, B, "NVIDIA A30", 0),
        Gpu(0, A, "NVIDIA A100-SXM4-40GB", 0),
    ]
    boards = {A: (profiles(A100_40), SEEN), B: (profiles(A30), ())}
    made.update(
        gpus,
        {uuid: MigReading(True, True, 1.0, table, there) for uuid, (table, there) in boards.items()},
    )
    return made


def row(**values: Any) -> dict[str, Any]:
    """What an instance of READY's kind is shown as, but for `values`."""
    whole = {
        "gpu": 0,
        "gpu_uuid": A,
        "gi": 9,
        "ci": 0,
        "uuid": "MIG-a",
        "profile": "1g.5gb",
        "start": 4,
        "size": 1,
    }
    whole |= {
        "memory": 4864 * MIB,
        "compute": 1,
        "state": "in-use",
        "ours": True,
        "container": None,
        "name": None,
    }
    return whole | {"idle_s": None, "processes": []} | values


THEIRS = {"ours": False, "state": "foreign"}


def test_every_instance_is_shown_by_gpu_and_place() -> None:
    """With what is known of it: who has it, how long it is idle, who runs on it; one whose GPU is gone comes last."""
    assert views.instances(node(), RECORDS, NAMES, 100.0) == [
        row(
            start=0,
            gi=2,
            uuid="MIG-x",
            profile="2g.10gb",
            size=2,
            memory=9856 * MIB,
            compute=2,
            processes=[7],
        )
        | THEIRS,
        row(
            start=2,
            gi=3,
            ci=None,
            uuid=None,
            profile=None,
            size=2,
            memory=None,
            compute=None,
            processes=[8, 9],
        )
        | THEIRS,
        row(container="c1" * 32, name="train", processes=[41, 42]),
        row(start=5, gi=10, uuid="MIG-b", state="idle", idle_s=29.5),
        row(start=6, gi=None, ci=None, uuid=None, state="making"),
        row(start=0, gpu=None, gpu_uuid="GPU-gone", gi=0, state="removing"),
    ]


def test_a_gpu_is_summed_up_in_a_word_for_each_instance() -> None:
    """By place; how each is, unless it is in use."""
    here = node()
    assert views.summary(here, A, RECORDS) == (
        "2g.10gb foreign, ? foreign, 1g.5gb, 1g.5gb idle, 1g.5gb making"
    )
    assert views.summary(here, B, RECORDS) == ""
    assert views.summary(here, "GPU-gone", RECORDS) == "1g.5gb removing"


def rooms(instances: list[Instance], note: str = "") -> list[int]:
    shown = views.profiles(node(), instances, {A: note, B: ""})[0]
    assert shown["note"] == note
    return [one["room"] for one in shown["profiles"]]


def test_profiles_are_listed_with_what_the_driver_says_of_them() -> None:
    """Of each GPU that can have MIG, by size."""
    shown = views.profiles(node(), [], {A: "", B: "it serves fractions"})
    assert [{**one, "profiles": len(one["profiles"])} for one in shown] == [
        {"index": 0, "uuid": A, "model": "NVIDIA A100-SXM4-40GB", "mig": True, "note": "", "profiles": 7},
        {
            "index": 1,
            "uuid": B,
            "model": "NVIDIA A30",
            "mig": True,
            "note": "it serves fractions",
            "profiles": 5,
        },
    ]
    names = [one["name"] for one in shown[0]["profiles"]]
    assert names == ["1g.5gb", "1g.5gb+me", "1g.10gb", "2g.10gb", "3g.20gb", "4g.20gb", "7g.40gb"]
    assert shown[0]["profiles"][3] == {
        "name": "2g.10gb",
        "id": 14,
        "memory": 9856 * MIB,
        "compute": 2,
        "size": 2,
        "starts": [0, 2, 4],
        "most": 3,
        "room": 3,
    }


@pytest.mark.parametrize(
    ("instances", "room"),
    [
        ([], [7, 1, 4, 3, 2, 1, 1]),
        ([instance(gpu(), "3g.20gb", 4)], [4, 1, 2, 2, 1, 1, 0]),
        ([instance(gpu(), "3g.20gb", 4, idle_since=1.0)], [7, 1, 4, 3, 2, 1, 1]),
        ([instance(gpu(), "3g.20gb", 4, ours=False)], [4, 1, 2, 2, 1, 1, 0]),
        ([instance(gpu(), "1g.5gb+me", 6)], [6, 0, 3, 3, 1, 1, 0]),
        ([instance(gpu(1), "7g.40gb", 0)], [7, 1, 4, 3, 2, 1, 1]),
        ([instance(gpu(), "7g.40gb", 0), instance(gpu(), "7g.40gb", 0)], [0] * 7),
    ],
    ids=["empty", "in use", "idle", "of others", "the only one of its kind", "elsewhere", "said twice"],
)
def test_room_is_what_is_left_beside_what_cannot_go(instances: list[Instance], room: list[int]) -> None:
    """Slices, and how many of a kind may live at once; none where something is against it."""
    assert rooms(instances) == room
    assert set(rooms(instances, "MIG mode is off")) == {0}


@pytest.mark.parametrize(
    ("uuid", "instances", "memory"),
    [
        (A, [], 40192),
        (A, [instance(gpu(), "7g.40gb", 0, idle_since=1.0)], 40192),
        (A, [instance(gpu(), "1g.5gb", 0)], 19968),
        (A, [instance(gpu(), "4g.20gb", 0), instance(gpu(), "2g.10gb", 4)], 9856),
        (A, [instance(gpu(), "7g.40gb", 0)], 0),
        (B, [instance(gpu(), "7g.40gb", 0)], 24000),
        (PLAIN, [], 0),
    ],
)
def test_the_largest_portion_that_is_left_is_an_ordinary_profile(
    uuid: str, instances: list[Instance], memory: int
) -> None:
    """In bytes, by evicting idle ones if need be."""
    assert views.largest_free(node(), uuid, instances) == memory * MIB
