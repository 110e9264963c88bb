"""The operations of docs/protocol.md: which there are, who may ask for each, and what becomes of a refusal.

A Message in, a Message out. What each of them does is containers.py's, host_processes.py's, questions.py's or
mig_changes.py's. Knows nothing of sockets beyond who is at the other end.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import Any, Final

from gpuportion import wire
from gpuportion.allocator.containers import Containers
from gpuportion.allocator.host_processes import HostProcesses
from gpuportion.allocator.mig_changes import MigChanges
from gpuportion.allocator.peer import Peer
from gpuportion.allocator.pending import Steps, Wait, drive
from gpuportion.allocator.questions import Questions
from gpuportion.allocator.store import FullStoreError
from gpuportion.errors import GpuportionError, RefusedError

log: Final = logging.getLogger("gpuportiond")

PROTOCOL: Final = 1

Operation = Callable[[Peer, wire.Message], "wire.Message | Steps[wire.Message]"]


class Operations:
    def __init__(
        self, containers: Containers, processes: HostProcesses, questions: Questions, mig: MigChanges
    ) -> None:
        self._table: Final[dict[str, tuple[Operation, bool]]] = {
            # op: (what is done, only for root)
            "create": (containers.create, True),
            "confirm": (containers.confirm, True),
            "deleted": (containers.deleted, True),
            "update": (containers.update, True),
            "exec": (processes.exec, False),
            "why": (questions.why, False),
            "ps": (questions.ps, False),
            "node": (questions.node, False),
            "config": (questions.config, False),
            "mig-profiles": (questions.mig_profiles, False),
            "mig-list": (questions.mig_list, False),
            "ping": (questions.ping, False),
            "mig-gc": (mig.gc, True),
            "set-role": (mig.set_role, True),
            "remove-role": (mig.remove_role, True),
        }

    def answer(self, peer: Peer, message: wire.Message) -> Wait[wire.Message]:
        """The answer to one request, mostly at once; never raises. Descriptors of the message stay the caller's."""
        try:
            operation, root_only = self._operation(message.head)
            if root_only and peer.uid != 0:
                raise GpuportionError("GP303", why=f"only root may ask for this, not user {peer.uid}")
            answer = operation(peer, message)
        except Exception as problem:
            answer = _refusal(problem, peer, message)
        return Wait(answer) if isinstance(answer, wire.Message) else drive(_answered(answer, peer, message))

    def _operation(self, head: dict[str, Any]) -> tuple[Operation, bool]:
        if head.get("v") != PROTOCOL:
            raise GpuportionError(
                "GP304", why=f"it is of protocol {head.get('v')!r}; this daemon has {PROTOCOL}"
            )
        found = self._table.get(str(head.get("op")))
        if found is None:
            raise GpuportionError("GP304", why=f"no operation is called {str(head.get('op'))[:40]!r}")
        return found


def _answered(steps: Steps[wire.Message], peer: Peer, message: wire.Message) -> Steps[wire.Message]:
    try:
        return (yield from steps)
    except Exception as problem:
        return _refusal(problem, peer, message)


def _refusal(problem: Exception, peer: Peer, message: wire.Message) -> wire.Message:
    """What is said, and logged, where an operation could not be done."""
    if isinstance(problem, (GpuportionError, RefusedError)):
        text = plain(problem.text)
        log.info("refused (uid %d): %s", peer.uid, text)
        return wire.Message({}, text.encode(), wire.REFUSED)
    if isinstance(problem, FullStoreError):
        log.error("%s: %s", problem.filename, problem.strerror)
        why = f"{problem.filename}: {problem.strerror}. Make room there; nothing was changed"
        full = GpuportionError("GP306", what="writing the grant down", why=f"{why}.")
        return wire.Message({}, full.text.encode(), wire.REFUSED)
    log.error("a bug, met by %r", message.head.get("op"), exc_info=problem)
    why = "the daemon met an error of its own; its log has it (journalctl -u gpuportiond)"
    failure = GpuportionError("GP306", what=f"the operation {message.head.get('op')!r}", why=why)
    return wire.Message({}, failure.text.encode(), wire.REFUSED)


PHRASES: Final = (
    # docker takes these, in any case, for other troubles and changes its exit status and advice
    (re.compile("no such file or directory", re.IGNORECASE), "it is not there"),
    (re.compile("permission denied", re.IGNORECASE), "it is not permitted"),
    (re.compile("executable file not found", re.IGNORECASE), "the program is not there"),
)


def plain(text: str) -> str:
    """The text without phrases that mean something to engines, nor halves of characters, which JSON can hold and a
    frame can't."""
    for phrase, instead in PHRASES:
        text = phrase.sub(instead, text)
    return text.encode(errors="backslashreplace").decode()
