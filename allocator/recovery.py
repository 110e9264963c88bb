"""After a restart: every grant that somebody lives by is found again, and what belongs to none goes.

    rows                 of the store, or of the notes where the store lost them
    pages without a row  adopted, where somebody lives with them; else removed
    what each needs      `reconcile` decides, from rows and host; it is done here

Done once, before anybody is served. Knows nothing of NVML, placement or sockets."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Sequence
from typing import Final

from gpuportion.allocator import pages
from gpuportion.allocator.fault_points import here
from gpuportion.allocator.grants import CONTAINER, PROCESS, Grants, now
from gpuportion.allocator.lifecycle import State
from gpuportion.allocator.rebuild import Found, as_grant
from gpuportion.allocator.reconcile import reconcile
from gpuportion.allocator.store import Grant

log: Final = logging.getLogger("gpuportiond")

Survivors = Callable[[Collection[str]], Sequence[Found]]
"""Of tokens without a row, the grants that somebody lives with (rebuild.py)."""


def recover(grants: Grants, survivors: Survivors) -> None:
    """Find again what is alive, release the rest, remove what belongs to nothing."""
    os.makedirs(grants.pages_dir, mode=0o711, exist_ok=True)
    os.chmod(grants.pages_dir, 0o711)  # a caller of exec reaches its own folder, and nobody lists them
    here("recovering")
    _restore(grants)
    rows = {grant.token: grant for grant in grants.store}
    for grant in rows.values():
        grants.presence.watch_again(grant, now())
    plan = reconcile(rows.values(), grants.presence.world(rows.values(), now()), os.listdir(grants.pages_dir))
    adopted = [_adopt(grants, found) for found in survivors(plan.orphans)] if plan.orphans else []
    here("adopted")
    for token in plan.orphans:
        if token not in adopted:
            _remove_orphan(grants, token)
    here("orphans-removed")
    for token, event in plan.release:
        grants.release(rows[token], event)
    for token in plan.finish:
        grants.remove(rows[token])
    for token in plan.keep:
        grants.look_again(rows[token])
    for token in plan.mend:
        _mend_limits(grants, rows[token])


def _restore(grants: Grants) -> None:
    """What the store has lost and the notes have: as it was, whether or not anybody lives with it."""
    store, notes = grants.store, grants.notes
    for grant in notes.lost([grant.token for grant in store], grants.presence.boot):
        log.warning("found again %s %s, by its note", grant.token[:8], grant.label)
        store.add(grant)
    notes.complete(grant for grant in store if grant.state is State.ACTIVE)


def _mend_limits(grants: Grants, grant: Grant) -> None:
    """Of a grant that was being resized when the daemon ended, the page may say something else than the row."""
    if grant.mig:
        return
    try:
        grants.write_limits(grant, grant.shares)
    except (OSError, LookupError, pages.BadPageError) as problem:
        log.warning("the limits of %s could not be looked at: %s", grant.token[:8], problem)


def _adopt(grants: Grants, found: Found) -> str:
    """The row is lost, but not who lives by it: a store that was broken, or taken away."""
    kind = PROCESS if found.is_process else CONTAINER
    grant = grants.store.add(as_grant(found, kind, grants.presence.boot, now()))
    shares = tuple(f"{share.limit >> 20} MiB of GPU {share.index}" for share in found.shares)
    log.warning("found again %s %s: %s", grant.token[:8], grant.label, " + ".join(shares))
    grants.presence.watch_again(grant, now())
    grants.look_again(grant)
    return grant.token


def _remove_orphan(grants: Grants, token: str) -> None:
    log.info("removing %s, which belongs to no grant", token[:8])
    try:
        pages.remove(f"{grants.pages_dir}/{token}")
    except OSError as problem:
        log.warning("%s could not be removed: %s", token, problem)
