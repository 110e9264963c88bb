"""Random instances against a small model of a board: slots, counts, and media that exclude each other."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpuportion import simgpu
from gpuportion.simgpu import Behaviour, mig
from gpuportion.simgpu.boards import BOARDS
from gpuportion.simgpu.profiles import Profile, families
from tests.simgpu.nvml import Nvml, Refused

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: MIG is changed by root alone")
NAMES = ("a30-24gb", "a100-80gb", "rtx-pro-6000-96gb")


@dataclass
class Model:
    """What lies where: profiles by their first slot."""

    placed: dict[int, Profile] = field(default_factory=dict)

    def fits(self, new: Profile, start: int) -> bool:
        taken = {slot for at, other in self.placed.items() for slot in range(at, at + other.slots)}
        others = list(self.placed.values())
        kinds = [other.kind for other in others]
        if taken & set(range(start, start + new.slots)) or others.count(new) >= new.most:
            return False
        if new.kind == "me" and "me" in kinds:
            return False
        return all(new.kind == "none" or other == "none" for other in kinds if "all" in (new.kind, other))

    def room(self, new: Profile) -> int:
        places = sum(self.fits(new, start) for start in new.starts)
        return min(places, new.most - list(self.placed.values()).count(new))


@pytest.fixture(scope="module", params=NAMES)
def board(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, libraries: object
) -> Iterator[tuple[str, str, Nvml]]:
    """A board's name, its state, and one long session with it."""
    folder = str(tmp_path_factory.mktemp("mig") / "sim")
    sim = simgpu.start(
        request.param, folder, cdi_dir=None, libraries=str(libraries), behaviour=Behaviour(mig=True)
    )
    with Nvml(sim) as nvml:
        yield request.param, sim.state, nvml


STEPS = st.lists(
    st.tuples(st.integers(0, 99), st.integers(0, 99), st.integers(0, 3)), min_size=1, max_size=14
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_nvml_allows_what_the_model_allows(
    board: tuple[str, str, Nvml], steps: list[tuple[int, int, int]]
) -> None:
    """Instances made at a place or anywhere, and removed; after each step capacity and list agree."""
    name, path, nvml = board
    rows = families()[BOARDS[name].mig]
    nvml.ask("clear()")
    model = Model()
    ids: dict[int, int] = {}
    for which, where, what in steps:
        profile = rows[which % len(rows)]
        start = profile.starts[where % len(profile.starts)]
        if what == 0 and model.placed:
            start = sorted(model.placed)[where % len(model.placed)]
            nvml.ask(f"destroy({ids.pop(start)})")
            del model.placed[start]
        elif what == 1:
            free = [at for at in profile.starts if model.fits(profile, at)]
            if made := attempt(nvml, f"create({profile.id})", bool(free)):
                model.placed[max(free)], ids[max(free)] = profile, made[0]
        elif made := attempt(nvml, f"create({profile.id}, {start})", model.fits(profile, start)):
            model.placed[start], ids[start] = profile, made[0]
        shown = [[ids[at], other.id, at, other.slots] for at, other in model.placed.items()]
        assert nvml.ask("instances()") == sorted(shown)
        assert sorted(ids.values()) == mig.instances(path, 0)
        assert nvml.ask(f"capacity({profile.id})") == model.room(profile)


def attempt(nvml: Nvml, expression: str, allowed: bool) -> list[int]:
    """The new instance's id; nothing if it was refused, as it must be just when it is not allowed."""
    try:
        made = [int(nvml.ask(expression))]
    except Refused as refused:
        assert (str(refused), allowed) == ("InsufficientResources", False), expression
        return []
    assert allowed, expression
    return made
