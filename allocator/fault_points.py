"""Places at which a daemon under test ends itself as SIGKILL would, so that tests meet every step of its work.

    GPUPORTION_TEST_FAULT=reserved      it dies when it comes to this place for the first time
    GPUPORTION_TEST_FAULT=reserved:5    for the fifth time

For tests alone. The variable is read once, at the start of the daemon; where it is not set, as on every real
node, `here` does nothing. It names one of POINTS, or the daemon does not start: a test of a place that is not
there any more would prove nothing. Knows nothing of what is done at them."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable, Mapping
from typing import Final

VARIABLE: Final = "GPUPORTION_TEST_FAULT"

POINTS: Final = {
    # place: what has just been done there, and what has not
    "reserving": "a request was placed; nothing is written",
    "reserved": "the row is there, no page is",
    "ledger-mounted": "the ledger's file system is there and empty",
    "ledger-written": "the ledger is there, the policy is not",
    "pages-made": "all pages are there, the spec is not edited",
    "portion-made": "exec: the private folder is there, the grant is only reserved",
    "answering": "an answer is ready, nothing of it is sent",
    "answered": "an answer is sent",
    "confirming": "a hook's pidfd has come, nothing is written",
    "confirmed": "the row is active, the hook has no answer",
    "releasing": "a container was found empty, nothing is written",
    "released": "the grant is over, which is still to be written; all pages are there",
    "ledger-unmounted": "the ledger is no file system any more, its folder is there",
    "pages-removed": "the pages are gone, the row is there",
    "forgotten": "that the row goes is still to be written",
    "mig-taken": "MIG: an idle instance is a grant's by the book, nobody has looked whether it is there",
    "mig-intended": "MIG: what is to be made and what is to go for it is in the book, nothing is done",
    "mig-making": "MIG: the victims are gone",
    "mig-gpu-instance-made": "MIG: the GPU instance is there, no compute instance is",
    "mig-compute-instance-made": "MIG: both are there, nobody has looked at them",
    "mig-verified": "MIG: the instance is as it was asked for, the book does not know it",
    "mig-rolling-back": "MIG: a step failed, half of an instance is there",
    "mig-recorded": "MIG: the book has the instance, its grant does not",
    "mig-given-up": "MIG: a failed intent is out of the book, its grant is still reserved",
    "mig-freed": "MIG: its grant is over, and the instance is idle",
    "mig-removal-intended": "MIG: instances are to go by the book, nothing is done",
    "mig-removing": "MIG: both halves of an instance are there",
    "mig-compute-instance-removed": "MIG: half of an instance is there",
    "mig-gpu-instance-removed": "MIG: an instance is gone, the book still has it",
    "mig-removal-recorded": "MIG: the book knows what is gone",
    "recovering": "at start: nothing of what an earlier daemon left was looked at",
    "adopted": "at start: grants whose rows were lost have rows again",
    "orphans-removed": "at start: pages without a row are gone, no grant was looked at",
}

_passes: dict[str, int] = {}
"""How often a daemon may come to a place until it dies there; empty but for tests."""


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


_ends: list[Callable[[], None]] = [_kill]
"""How it dies: the last one."""


class UnknownPointError(Exception):
    """The variable names no place; the text is a sentence."""


def arm(environ: Mapping[str, str], end: Callable[[], None] = _kill) -> str:
    """Take over what the variable says; the place where this daemon will die, or an empty string.

    `end`: how, where it's no process of its own that dies."""
    value = environ.get(VARIABLE, "")
    name, _, count = value.partition(":")
    if value and (name not in POINTS or not (count or "1").isdecimal()):
        raise UnknownPointError(f"{VARIABLE}={value} names none of the places {' '.join(POINTS)}")
    if name:
        _passes[name] = int(count or 1)
        _ends.append(end)
    return name


def disarm() -> None:
    """Die nowhere."""
    _passes.clear()


def next_of(names: Iterable[str]) -> str:
    """Which of these is the place that it dies at when it next comes there, or an empty string: for work that can't
    stop to ask."""
    return next((name for name in names if _passes.get(name) == 1), "") if _passes else ""


def here(name: str) -> None:
    """This place was reached."""
    if name not in _passes:
        return
    _passes[name] -= 1
    if _passes[name] <= 0:
        _ends[-1]()
