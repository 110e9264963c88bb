"""What is said of GPUs before anybody asks for one, and that it is said anew where something is another."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Mapping
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from gpuportion.allocator.devices import NOTHING, Gpu
from gpuportion.allocator.fractions import Fractions
from gpuportion.allocator.links import ranks, sums
from gpuportion.allocator.mig.node import MigNode
from gpuportion.allocator.mig.roles import ByMode
from gpuportion.allocator.mig.seen import MigReading
from gpuportion.allocator.pool import KEPT, Pool
from gpuportion.sizes import MIB


def gpu(index: int, trouble: str = "", near: Mapping[int, int] | None = None) -> Gpu:
    """One of 40 GiB, with links to GPUs of these indexes."""
    ranks = {f"GPU-{to}": rank for to, rank in (near or {}).items()}
    return Gpu(index, f"GPU-{index}", "NVIDIA A100", 40 << 30, trouble=trouble, links=ranks)


def test_the_healthy_ones_are_offered_by_index() -> None:
    """All are known, for messages."""
    gpus = [gpu(2), gpu(0), gpu(1, "it is ill")]
    found = Pool(gpus)
    assert found.gpus == tuple(gpus)
    assert [one.index for one in found.healthy] == [0, 2]
    assert Pool([]).healthy == ()


@given(st.integers(0, 60), st.integers(0, 60), st.sampled_from(("1", "1.5", "3")))
def test_an_offer_is_the_gpu_in_numbers(total: int, unmanaged: int, overcommit: str) -> None:
    """What strangers hold is part of what it could ever give, and of nothing else."""
    one = Gpu(
        0,
        "GPU-0",
        "A",
        total * MIB + 5,
        unmanaged=unmanaged * MIB,
        margin=3 * MIB,
        overcommit=Decimal(overcommit),
    )
    (offer,) = Pool([one]).healthy
    assert (offer.gpu, offer.uuid, offer.index) == (one, "GPU-0", 0)
    assert (offer.grantable, offer.promised, offer.unmanaged) == (
        one.grantable,
        one.promised,
        unmanaged * MIB,
    )
    assert offer.ever == one.grantable + one.unmanaged


def test_links_are_added_up_to_those_that_nobody_has() -> None:
    """An ill one is nobody's goal; a pair counts by what either of the two says."""
    gpus = [gpu(0, "", {1: 50, 2: 30, 3: 9}), gpu(1, "", {2: 10}), gpu(2), gpu(3, "it is ill", {0: 9})]
    found = Pool(gpus)
    assert found.linked({}) == {"GPU-0": 80, "GPU-1": 60, "GPU-2": 40}
    assert found.linked({"GPU-0": NOTHING, "GPU-gone": NOTHING}) == {"GPU-0": 80, "GPU-1": 10, "GPU-2": 10}
    assert found.linked(dict.fromkeys(("GPU-0", "GPU-1", "GPU-2"))) == dict.fromkeys(
        ("GPU-0", "GPU-1", "GPU-2"), 0
    )


def test_sums_are_remembered_within_bounds() -> None:
    """The last ones are; they come out right beyond that, too."""
    gpus = [gpu(at, "", {to: at * to + 1 for to in range(7)}) for at in range(7)]
    found, uuids = Pool(gpus), [one.uuid for one in gpus]
    sets = [dict.fromkeys(some) for count in range(8) for some in itertools.combinations(uuids, count)]
    assert len(sets) == 2 * KEPT
    first = found.linked(sets[0])
    for taken in sets[1:KEPT]:
        assert found.linked(taken) == sums(gpus, [one for one in gpus if one.uuid not in taken])
    assert found.linked(dict(sets[0])) is first
    for taken in sets[KEPT:]:
        assert found.linked(taken) == sums(gpus, [one for one in gpus if one.uuid not in taken])
        assert found.linked(dict(taken)) is found.linked(taken)
    assert found.linked(sets[0]) is not first and found.linked(sets[0]) == first


def test_ranks_are_those_of_the_pairs() -> None:
    """Of all that are healthy, or of some of these, however often they are asked for."""
    gpus = [gpu(0, "it is ill"), gpu(1, "", {2: 9}), gpu(2, "", {3: 4}), gpu(3)]
    found = Pool(gpus)
    for _ in range(2):
        assert found.ranks(found.healthy) == ranks(gpus[1:]) == [[0, 9, 0], [9, 0, 4], [0, 4, 0]]
        assert found.ranks(found.healthy[1:]) == ranks(gpus[2:]) == [[0, 4], [4, 0]]


READING = MigReading(mode=False, pending=False, at=1.0)


def served(fractions: Fractions, gpus: tuple[Gpu, ...]) -> list[tuple[int, bool]]:
    """(index, whether it is healthy) of the GPUs that serve by fractions."""
    return [(one.index, not one.trouble) for one in fractions.pool(gpus).gpus]


def test_another_gpu_role_or_reading_is_heeded_at_once() -> None:
    """Whatever of it changes, and in both directions; MIG mode without the role makes a GPU ill."""
    roles = ByMode()
    node = MigNode(roles)
    fractions, gpus = Fractions(roles, node), (gpu(0), gpu(1))
    assert served(fractions, ()) == []
    assert served(fractions, gpus) == [(0, True), (1, True)]
    roles.update(["GPU-0"])
    assert served(fractions, gpus) == [(1, True)]
    roles.update([])
    node.update(gpus, {"GPU-1": READING})
    assert served(fractions, gpus) == [(0, True), (1, True)]
    in_mode = dataclasses.replace(READING, mode=True, at=2.0)
    node.update(gpus, {"GPU-1": in_mode})
    assert served(fractions, gpus) == [(0, True), (1, False)]
    assert re.match("MIG mode is off after a reset.* -i 1;", fractions.pool(gpus).gpus[1].trouble)
    node.update(gpus, {})
    assert served(fractions, gpus) == [(0, True), (1, True)]
    node.begin("GPU-1")
    node.end("GPU-1", in_mode, 3.0)
    assert served(fractions, gpus) == [(0, True), (1, False)]
    assert served(fractions, (gpu(0, "it is ill"),)) == [(0, False)]


def test_a_gpu_that_is_ill_already_keeps_its_reason() -> None:
    """What NVML says goes before what its mode means."""
    roles = ByMode()
    node = MigNode(roles)
    node.update((), {"GPU-0": dataclasses.replace(READING, mode=True)})
    (one,) = Fractions(roles, node).pool((gpu(0, "it is ill"),)).gpus
    assert one.trouble == "it is ill"


def test_what_stays_as_it_is_is_kept() -> None:
    """A sample that shows the same gives the same pool, also as other values that are equal."""
    roles = ByMode()
    node = MigNode(roles)
    fractions = Fractions(roles, node)
    node.update((gpu(0),), {"GPU-0": READING})
    before = fractions.pool((gpu(0),))
    node.update((gpu(0),), {"GPU-0": READING})
    assert fractions.pool((gpu(0),)) is before
    roles.update(["GPU-1"])
    assert fractions.pool((gpu(0),)) is not before
