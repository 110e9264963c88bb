"""A grant as a value, and how an intent becomes one."""

from __future__ import annotations

import dataclasses
import os
import selectors
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.daemon import Sleeper

from gpuportion.allocator import processes
from gpuportion.allocator.devices import Share
from gpuportion.allocator.grant import Grant, Intent
from gpuportion.allocator.grants import CONTAINER, Grants
from gpuportion.allocator.hints import Hints
from gpuportion.allocator.lifecycle import State
from gpuportion.allocator.store import Store

SHARE = Share("GPU-00000000-0000-0000-0000-000000000001", 0, 1 << 30)
GRANT = Grant("t", "boot", CONTAINER, "/run", "c1", 7, (SHARE,), 1.0, 2.0, request={"count": 1})


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "state": st.sampled_from(State),
            "generation": st.integers(0),
            "shares": st.just((SHARE, SHARE)),
            "cgroups": st.just(("/a",)),
        },
    )
)
def test_a_change_leaves_the_rest_as_it_was(changes: dict[str, object]) -> None:
    """As dataclasses.replace says, field by field; and the grant itself is never changed."""
    before = dataclasses.astuple(GRANT)
    after = GRANT.changed(**changes)
    assert after == dataclasses.replace(GRANT, **changes)  # type: ignore[arg-type]
    assert after is not GRANT and dataclasses.astuple(GRANT) == before


def test_what_no_grant_has_cannot_be_changed() -> None:
    """A name that is written wrong is no change that is lost."""
    with pytest.raises(AttributeError):
        GRANT.changed(sahres=())


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(str(tmp_path / "store"))
    yield made
    made.close()


@pytest.fixture
def hints() -> Iterator[Hints]:
    with selectors.DefaultSelector() as selector:
        made = Hints(selector)
        yield made
        made.close()


@pytest.fixture
def grants(store: Store, hints: Hints, tmp_path: Path) -> Grants:
    return Grants(
        store,
        hints,
        str(tmp_path),
        reservation_timeout=60,
        remove_more=lambda token: None,
        on_instance=lambda token: False,
    )


def test_all_of_an_intent_is_in_its_grant(grants: Grants, hints: Hints) -> None:
    """Whatever an intent has; of its creator the process, whose end is heard from now on."""
    with Sleeper() as creator:
        living = processes.meet(creator.pid)
        assert living is not None
        intent = Intent(CONTAINER, (SHARE,), {"count": 1}, "/r", "c7", "name", 7, "ann", living)
        fields = dataclasses.fields(intent)
        assert all(getattr(intent, each.name) != each.default for each in fields), "one that it hasn't here"
        made = grants.reserve(intent)
        expected = dataclasses.replace(intent, creator=None)
        assert made.creator == living.process
        assert all(
            getattr(made, each.name) == getattr(expected, each.name)
            for each in fields
            if each.name != "creator"
        )
        assert made.deadline == made.created + 60 and hints.is_alive(made.token)
    assert not hints.is_alive(made.token)


def test_an_intent_that_cannot_be_written_keeps_no_descriptor(grants: Grants, store: Store) -> None:
    """It is refused; a thousand refusals must leave the daemon its descriptors."""
    store.close()
    living = processes.meet(os.getpid())
    assert living is not None
    with pytest.raises(sqlite3.ProgrammingError):
        grants.reserve(Intent(CONTAINER, (SHARE,), {}, creator=living))
    with pytest.raises(OSError):
        os.fstat(living.pidfd)
