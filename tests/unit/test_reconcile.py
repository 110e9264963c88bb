"""What a start has to do, from any rows and any host: every row has one fate, and doing it leaves nothing to do."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hypothesis import given
from hypothesis import strategies as st

from gpuportion.allocator.lifecycle import Event, State, World
from gpuportion.allocator.reconcile import Plan, reconcile

BOOT = "boot-1"
TOKENS = st.sampled_from("abcdefgh")


@dataclass(frozen=True)
class Row:
    token: str
    boot: str
    state: State
    deadline: float


ROWS = st.lists(
    st.builds(Row, TOKENS, st.sampled_from([BOOT, "boot-0"]), st.sampled_from(State), st.floats(0, 100)),
    unique_by=lambda row: row.token,
)
WORLDS = st.builds(World, st.just(BOOT), st.floats(0, 100), living=st.frozensets(TOKENS))


@given(ROWS, WORLDS, st.frozensets(TOKENS))
def test_every_row_has_one_fate_and_every_folder_a_row(
    rows: list[Row], world: World, folders: frozenset[str]
) -> None:
    """A row in no list would leak, one in two would be released and kept."""
    plan = reconcile(rows, world, folders)
    fates = [*(token for token, _ in plan.release), *plan.finish, *plan.keep]
    assert sorted(fates) == sorted(row.token for row in rows)
    assert set(plan.orphans) == folders - {row.token for row in rows}
    active = {row.token for row in rows if row.state is State.ACTIVE}
    assert set(plan.mend) == active & set(plan.keep)


@given(ROWS, WORLDS)
def test_who_lives_keeps_and_who_is_gone_does_not(rows: list[Row], world: World) -> None:
    """Said again without the table: of this boot, with somebody who lives by it, and active or in time."""
    kept = {
        row.token
        for row in rows
        if row.boot == BOOT
        and row.token in world.living
        and (row.state is State.ACTIVE or (row.state is State.RESERVED and world.now < row.deadline))
    }
    assert set(reconcile(rows, world).keep) == kept


@given(ROWS, WORLDS, st.frozensets(TOKENS), st.integers(0, 20))
def test_a_plan_that_was_done_in_part_is_followed_by_the_rest(
    rows: list[Row], world: World, folders: frozenset[str], steps: int
) -> None:
    """A daemon may be killed between any two of its steps while it starts, too."""
    whole = reconcile(rows, world, folders)
    by_token = {row.token: row for row in rows}
    left = set(folders)
    for token, _ in whole.release[:steps]:
        by_token[token] = replace(by_token[token], state=State.RELEASED)
    for token in whole.finish[: max(0, steps - len(whole.release))]:
        left.discard(token)
        del by_token[token]
    for token in whole.orphans[:steps]:
        left.discard(token)
    rest = reconcile([*by_token.values()], world, left)
    assert rest.keep == whole.keep
    assert set(rest.release) == set(whole.release[steps:])


def test_a_start_after_a_crash_has_all_kinds_of_work() -> None:
    """In the order of the rows: what is decided of each, and which pages have none."""
    rows = [
        Row("a", BOOT, State.ACTIVE, 0),
        Row("b", BOOT, State.ACTIVE, 0),
        Row("c", BOOT, State.RESERVED, 10),
        Row("d", BOOT, State.RESERVED, 5),
        Row("e", BOOT, State.RELEASED, 0),
        Row("f", "boot-0", State.ACTIVE, 0),
    ]
    world = World(BOOT, 5, living=frozenset("acdf"))
    assert reconcile(rows, world, ["a", "e", "x"]) == Plan(
        release=(("b", Event.EMPTIED), ("d", Event.EXPIRED), ("f", Event.LOST)),
        finish=("e",),
        keep=("a", "c"),
        mend=("a",),
        orphans=("x",),
    )


def test_nothing_is_done_about_nothing() -> None:
    """A first start."""
    assert reconcile([], World(BOOT, 0)) == Plan()
