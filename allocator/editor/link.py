"""The daemon's end of the editor: starts its process, asks it, and starts another one where it ends.

    with editor.conversation() as spec:
        told = yield from spec.read(...)
        begun = spec.begin_edit(...)
        edited = yield from spec.edited(begun)

Others are served while it works. What was asked of a process that ended is refused; it is asked nothing twice, because
what it was about may be what ended it.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import logging
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from gpuportion import wire
from gpuportion.allocator import fast_json
from gpuportion.allocator.editor.frames import CHUNK, FAILED, Frames, Told
from gpuportion.allocator.grant import Grant
from gpuportion.allocator.pending import Steps, Wait
from gpuportion.errors import GpuportionError, RefusedError
from gpuportion.shim.request import Request

log: Final = logging.getLogger("gpuportiond")

SEND: Final = socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT

ENDED: Final = (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN)

PATIENCE: Final = 45.0
"""Seconds without an answer until it is ended: more than `nvidia-ctk` may take for one."""

LAST_WAIT: Final = 2.0
"""Seconds for a killed process to be gone; one that hangs in the kernel is left to it."""

Answer = Wait[Told | None]

MODULE: Final = "gpuportion.allocator.editor"


class Editor:
    def __init__(
        self,
        selector: selectors.BaseSelector,
        arguments: Sequence[str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Its process starts at once; `arguments` are of its command line. `clock`: seconds."""
        self._selector = selector
        self._clock = clock
        self._since = clock()
        self.ends = 0
        """How many processes have ended: what one has read, another doesn't know."""
        self._command = [sys.executable, "-m", MODULE, *arguments]
        self._numbers = itertools.count(1)
        self._process: subprocess.Popen[bytes] | None = None
        self._start()

    def conversation(self) -> Conversation:
        return Conversation(self, next(self._numbers))

    @property
    def pid(self) -> int | None:
        """None: it has ended, and nobody has come since."""
        return self._process.pid if self._process else None

    def close(self) -> None:
        """It has nothing that would have to be kept."""
        if self._process:
            self._end(self._process)

    def _start(self) -> None:
        self._frames = Frames()
        self._outbox = bytearray()
        self._waiting: dict[int, Answer] = {}
        self._sock, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                self._command, stdin=theirs.fileno(), stdout=subprocess.DEVNULL, cwd="/"
            )
        self._wanted = selectors.EVENT_READ
        self._selector.register(self._sock, self._wanted, self._go_on)

    def _end(self, process: subprocess.Popen[bytes]) -> int:
        self._selector.unregister(self._sock)
        self._sock.close()
        self._process = None
        self.ends += 1
        process.kill()
        try:
            return process.wait(LAST_WAIT)
        except subprocess.TimeoutExpired:
            return -signal.SIGKILL

    def ask(self, number: int, head: dict[str, Any], body: bytes = b"") -> Answer:
        """What it answers; None: its process has ended."""
        if self._process is None:
            self._start()
        self.tell(number, head, body)
        if not self._waiting:
            self._since = self._clock()
        wait: Answer = Wait()
        self._waiting[number] = wait
        return wait

    def tell(self, number: int, head: dict[str, Any], body: bytes = b"") -> None:
        """Without an answer. While it has others to answer it is not woken for more: that then goes in one piece."""
        if self._process is None:
            return
        self._outbox += wire.frame(wire.REQUEST, fast_json.dumps({**head, "n": number}), body)
        if not self._waiting:
            self._send()

    def forget(self, number: int) -> None:
        """Nobody waits any more for what was asked."""
        self._waiting.pop(number, None)

    def _go_on(self) -> None:
        if self._process is None:
            return
        try:
            for told in self._frames.take(self._received()):
                wait = self._waiting.pop(_number(told), None)
                self._since = self._clock()
                if wait is not None:
                    wait.end(told)
        except (EOFError, wire.ProtocolError):
            self._is_gone(self._process)
            return
        if self._outbox:
            self._send()

    def _received(self) -> bytes:
        """What has come. EOFError at the end."""
        try:
            data = self._sock.recv(CHUNK, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return b""
        except OSError:
            data = b""
        if not data:
            raise EOFError
        return data

    def look(self) -> None:
        """End it if it has answered nobody for too long: it is stopped, or waits for a file system that hangs."""
        if self._process is not None and self._waiting and self._clock() - self._since > PATIENCE:
            self._is_gone(self._process)

    def _send(self) -> None:
        """As much as it takes now."""
        try:
            del self._outbox[: self._sock.send(self._outbox, SEND)]
        except OSError as problem:
            if problem.errno in ENDED:
                return  # as `_go_on` will find
        wanted = selectors.EVENT_READ | selectors.EVENT_WRITE if self._outbox else selectors.EVENT_READ
        if self._wanted != wanted:
            self._wanted = wanted
            self._selector.modify(self._sock, wanted, self._go_on)

    def _is_gone(self, process: subprocess.Popen[bytes]) -> None:
        """Whoever comes next starts another one: one that ends at once must not be started without end."""
        status = self._end(process)
        waiting, self._waiting = self._waiting, {}
        log.error("the editor of specs ended (%d); another one is started for the next container", status)
        for wait in waiting.values():
            wait.end(None)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a spec says before there is a grant. `user`: of the annotation; `label`: SELinux, of its mounts."""

    request: Request | None
    is_sandbox: bool
    user: str | None
    name: str
    label: str


@dataclass(frozen=True, slots=True)
class Edited:
    """`removed`: what was in the spec and went, in words for the log. `config`: the new config.json."""

    removed: list[str]
    config: bytes


class Conversation:
    """About one container's spec. Each question may be refused: RefusedError or GpuportionError."""

    def __init__(self, editor: Editor, number: int) -> None:
        self._editor = editor
        self._number = number
        self._is_kept = False
        self._ends = 0

    def read(self, config: bytes, id: str, head: Mapping[str, Any]) -> Steps[Asked]:
        """`head`: of the launcher's request, which says what it found in the image."""
        image = {key: head[key] for key in ("image_drivers", "image_mounts") if key in head}
        begun = self._editor.ask(self._number, {"op": "read", "id": id, **image}, config)
        self._is_kept, self._ends = True, self._editor.ends
        told, _ = yield from _told(begun)
        request = told["request"]
        return Asked(
            None if request is None else Request.from_json(request),
            told["sandbox"],
            told["user"],
            told["name"],
            told["label"],
        )

    def begin_edit(self, grant: Grant, folder: str, minors: Mapping[str, int]) -> Answer:
        """For a grant whose pages will lie in `folder`. `minors`: the GPUs' minor numbers, by UUID."""
        cards = [(share.index, share.uuid, minors[share.uuid]) for share in grant.shares]
        return self._begin("edit", grant, folder=folder, cards=cards)

    def begin_edit_for_mig(self, grant: Grant) -> Answer:
        """For a grant that is a MIG instance."""
        return self._begin("edit-for-mig", grant, portion=grant.mig)

    def _begin(self, op: str, grant: Grant, **more: object) -> Answer:
        self._is_kept = False
        if self._editor.ends != self._ends:
            return Wait(None)  # as if it had been asked: it ended since it has read the spec
        return self._editor.ask(self._number, {"op": op, "token": grant.token, **more})

    def edited(self, begun: Answer) -> Steps[Edited]:
        """What became of an edit."""
        told, config = yield from _told(begun)
        return Edited(told["removed"], config)

    def end(self) -> None:
        self._editor.forget(self._number)
        if self._is_kept:
            self._editor.tell(self._number, {"op": "drop"})


def _told(begun: Answer) -> Steps[tuple[dict[str, Any], bytes]]:
    told = yield begun
    if told is None or told.status == FAILED:
        raise _failure(told)
    if told.status != wire.OK:
        raise RefusedError(told.body.decode())
    return fast_json.loads(told.head), told.body


def _number(told: Told) -> int:
    """ProtocolError: it is none of the editor's."""
    try:
        return int(fast_json.loads(told.head)["n"])
    except (ValueError, TypeError, LookupError):
        raise wire.ProtocolError("a frame without a number") from None


def _failure(told: Told | None) -> GpuportionError:
    what = "met an error of its own" if told else "ended at that moment; another one was started"
    why = f"the process that edits it {what} (journalctl -u gpuportiond). Start the container again"
    return GpuportionError("GP306", what="editing the container's config.json", why=f"{why}.")


@contextlib.contextmanager
def about_a_spec(editor: Editor) -> Iterator[Conversation]:
    """A conversation, which ends however what it is for ends."""
    conversation = editor.conversation()
    try:
        yield conversation
    finally:
        conversation.end()
