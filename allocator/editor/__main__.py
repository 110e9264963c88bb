"""The editor's process: answers the daemon, on the socket that is its standard input, until that ends.

    frame in      n JSON: {"n": conversation, "op": ..., ...}, body
    frame out     status, n JSON: {"n": conversation, ...}, body

A config.json is what an engine, a user and an image have made of it; nothing that its bytes do to their reader, nor the
memory that it takes, is the daemon's. Signals are the daemon's business: a service manager may send them to all.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import signal
import socket
import sys
from collections.abc import Callable
from typing import Final

from gpuportion import wire
from gpuportion.allocator import fast_json, log_lines
from gpuportion.allocator.cdi_files import CdiFiles
from gpuportion.allocator.editor.editing import Editing
from gpuportion.allocator.editor.frames import CHUNK, FAILED, Frames, Told
from gpuportion.errors import GpuportionError

log: Final = logging.getLogger("gpuportiond")

LONGEST: Final = wire.MAX_ANSWER - 64
"""Bytes of what is told of a spec, so that it fits a frame with its number."""

TOO_LARGE: Final = (
    f"the container's config.json, or what it asks for, is over {wire.MAX_BODY >> 20} MiB once it is edited"
)

SCORE: Final = "/proc/self/oom_score_adj"


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cdi-dir", action="append")
    parser.add_argument("--made", required=True)
    options = parser.parse_args()
    log_lines.begin(sys.stderr)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(OSError), open(SCORE, "w") as file:
        file.write("0")  # the daemon's is lower: of the two, the kernel is to end this one for want of memory
    editing = Editing(CdiFiles(options.cdi_dir, made=options.made))
    with socket.socket(fileno=0) as sock:
        _serve(sock, lambda told: _answer(editing, told))
    return 0


def _serve(sock: socket.socket, answer: Callable[[Told], bytes]) -> None:
    """Until the daemon has ended, which need not be told of that."""
    frames = Frames()
    with contextlib.suppress(OSError):
        while data := sock.recv(CHUNK):
            for told in frames.take(data):
                if reply := answer(told):
                    sock.sendall(reply)


def _answer(editing: Editing, told: Told) -> bytes:
    head = fast_json.loads(told.head)
    number = head["n"]
    try:
        reply, body = editing.operations[head["op"]](number, head, told.body)
        status = wire.OK
        if len(body) > wire.MAX_BODY or len(fast_json.dumps(reply)) > LONGEST:
            raise GpuportionError("GP304", why=TOO_LARGE)
    except GpuportionError as refusal:
        status, reply, body = wire.REFUSED, {}, _text(refusal)
    except OSError as problem:
        why = f"{problem.filename or 'a system call'}: {problem.strerror}."
        failure = GpuportionError("GP306", what="editing the container's config.json", why=why)
        status, reply, body = wire.REFUSED, {}, _text(failure)
    except Exception:
        log.exception("a bug, met by the editor at %r", head["op"])
        status, reply, body = FAILED, {}, b""
    return wire.frame(status, fast_json.dumps({**reply, "n": number}), body) if head["op"] != "drop" else b""


def _text(refusal: GpuportionError) -> bytes:
    return refusal.text.encode(errors="backslashreplace")


if __name__ == "__main__":
    sys.exit(main())
