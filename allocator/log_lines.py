"""The daemon's log: `gpuportiond: ` and what happened, one line an event, to stderr.

A grant's life is three lines, so a line is made of its text alone, and goes out in one system call: where in the code
it was said, when and by which thread is not asked for, because nothing shows it. Knows no events."""

from __future__ import annotations

import logging
import os
from typing import Any, Final, TextIO

PREFIX: Final = "gpuportiond: "


class Line(logging.LogRecord):
    """What is shown of a record, and by what it finds its way. Messages name their arguments by order alone: a mapping
    is an argument as any other."""

    def __init__(  # noqa: PLR0913, PLR0917 (logging calls it so)
        self,
        name: str,
        level: int,
        pathname: str,
        lineno: int,
        msg: object,
        args: Any,
        exc_info: Any,
        func: str | None = None,
        sinfo: str | None = None,
    ) -> None:
        self.name, self.levelno, self.msg, self.args = name, level, msg, args
        self.exc_info, self.exc_text, self.stack_info = exc_info, None, sinfo


class Lines(logging.Handler):
    """Writes them to `stream`, past its buffer."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._fd = stream.fileno()
        self._encoding, self._errors = stream.encoding, stream.errors or "strict"
        self.setFormatter(logging.Formatter(f"{PREFIX}%(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        """As logging does it: what cannot be written is told where that is possible, and nobody is kept from work."""
        try:
            text = self.format(record) if record.exc_info else PREFIX + record.getMessage()
            left = f"{text}\n".encode(self._encoding, self._errors)
            while left:
                left = left[os.write(self._fd, left) :]
        except Exception:
            self.handleError(record)


def begin(stream: TextIO | None) -> None:
    """From now on, whatever is logged in this process goes to `stream`, from INFO on. None: there is no stderr."""
    logging.setLogRecordFactory(Line)
    logging._srcfile = None  # nobody looks for the caller (logging's HOWTO, Optimization)
    writer = logging.NullHandler() if stream is None else Lines(stream)
    logging.basicConfig(handlers=[writer], level=logging.INFO)
