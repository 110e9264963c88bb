"""What grants come to, after any changes, is what counting them anew gives."""

from __future__ import annotations

import dataclasses

from hypothesis import given
from hypothesis import strategies as st

from gpuportion.allocator.devices import Held, Holding, Share
from gpuportion.allocator.grant import Grant
from gpuportion.allocator.lifecycle import State
from gpuportion.allocator.tally import Tally
from gpuportion.sizes import MIB

shares = st.lists(
    st.builds(
        Share,
        st.sampled_from(["GPU-0", "GPU-1", "GPU-2"]),
        st.just(0),
        st.integers(0, 9).map(lambda n: n * MIB),
        exclusive=st.booleans(),
    ),
    max_size=3,
).map(tuple)

grants = st.builds(
    Grant,
    token=st.sampled_from("abcdef"),
    boot=st.just("boot"),
    kind=st.just("container"),
    root=st.sampled_from(["/run/docker", "/run/podman"]),
    id=st.sampled_from(["c1", "c2"]),
    uid=st.sampled_from([0, 1000]),
    user=st.sampled_from(["", "ann"]),
    shares=shares,
    created=st.just(0.0),
    deadline=st.just(0.0),
    state=st.sampled_from(State),
)


def counted(rows: dict[str, Grant]) -> Held:
    live = [grant for grant in rows.values() if grant.state is not State.RELEASED]
    return Held.of([Holding(grant.label, share) for grant in live for share in grant.shares])


@given(st.lists(grants | st.sampled_from("abcdef"), max_size=40))
def test_after_any_changes_it_is_as_counted_anew(changes: list[Grant | str]) -> None:
    """Rows come, become others of the same container and owner, and go; the oracle looks at all that are left."""
    tally, rows = Tally(), dict[str, Grant]()
    for change in changes:
        token = change if isinstance(change, str) else change.token
        before = rows.pop(token, None)
        after = None if isinstance(change, str) else change
        if before is not None and after is not None:  # what a row never changes
            after = dataclasses.replace(
                after, root=before.root, id=before.id, uid=before.uid, user=before.user
            )
        if after is not None:
            rows[token] = after
        tally.change(before, after)
        live = [grant for grant in rows.values() if grant.state is not State.RELEASED]
        assert tally.loads == counted(rows).loads
        for root, id in {(grant.root, grant.id) for grant in live} | {("/run/docker", "c1")}:
            same = [grant for grant in live if (grant.root, grant.id) == (root, id)]
            assert sorted(tally.of_container(root, id), key=str) == sorted(same, key=str)
        for owner in ("0", "1000", "ann"):
            own = [grant for grant in live if grant.owner == owner]
            assert sorted(tally.of_owner(owner), key=str) == sorted(own, key=str)


@given(st.lists(grants, max_size=8, unique_by=lambda grant: grant.token))
def test_a_store_that_is_opened_again_counts_the_same(rows: list[Grant]) -> None:
    """From the rows alone, whatever became of them before."""
    by_token = {grant.token: grant for grant in rows}
    assert Tally(rows).loads == counted(by_token).loads


def test_nothing_is_kept_of_what_has_gone() -> None:
    """A node makes thousands of containers a day, each with an id of its own."""
    tally = Tally()
    for number in range(100):
        share = Share("GPU-0", 0, MIB)
        made = Grant(f"{number}", "boot", "container", "/run", f"c{number}", 0, (share,), 0.0, 0.0)
        tally.change(None, made)
        tally.change(made, dataclasses.replace(made, state=State.RELEASED))
    assert not any(vars(tally).values())
