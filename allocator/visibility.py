"""Who is told of whose grants: root of all, others of all or only of their own, as the rules say.

What is left out of an answer is still counted: free memory is the same for everybody. Pure; knows nothing of how
anything is shown."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from gpuportion.allocator.devices import Held, Holding
from gpuportion.allocator.grant import Grant
from gpuportion.allocator.policy import ALL, ROOT, Policy
from gpuportion.allocator.tally import Tally

SOMEBODY: Final = "another user's"


def sees_all(rules: Policy, user: str) -> bool:
    """`user`: as grants are counted by; a uid, or the name that an annotation gave."""
    return user == ROOT or rules.visible == ALL


def of(grants: Iterable[Grant], rules: Policy, user: str) -> list[Grant]:
    """Those of which `user` is told."""
    return [grant for grant in grants if sees_all(rules, user) or grant.owner == user]


def held(tally: Tally, live: Callable[[], Iterable[Grant]], rules: Policy, user: str) -> Held:
    """All that counts, as placement needs it for a request of `user`."""
    return Held(tally.loads, lambda: holdings(live(), rules, user))


def holdings(grants: Iterable[Grant], rules: Policy, user: str) -> list[Holding]:
    """All that counts, with the names that a refusal may tell to `user`."""
    named = sees_all(rules, user)
    return [
        Holding(grant.label if named or grant.owner == user else SOMEBODY, share)
        for grant in grants
        for share in grant.shares
    ]
