"""The daemon's lines: byte for byte what logging's own stream would write, from any thread."""

from __future__ import annotations

import io
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gpuportion.allocator.log_lines import Line, Lines, begin


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Whatever `begin` changes is the whole process's."""
    factory, source, root = logging.getLogRecordFactory(), logging._srcfile, logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    logging.setLogRecordFactory(factory)
    logging._srcfile = source
    root.handlers[:] = handlers
    root.setLevel(level)


def record(message: object, *args: object, problem: BaseException | None = None) -> dict[str, Any]:
    """What a record is made of."""
    exc_info = None if problem is None else (type(problem), problem, problem.__traceback__)
    return {"msg": message, "args": args, "exc_info": exc_info}


def raised() -> BaseException:
    try:
        raise ValueError("it is \udc80\n broken")
    except ValueError as problem:
        return problem


@pytest.mark.parametrize(
    "said",
    [
        record("ready"),
        record("100 % of it"),
        record("granted %s %d", "c\u00e9 \u2603", 3),
        record("%r and %s", {"a": 1}, None),
        record("only %r", {"a": 1}),
        record("a name that is no text: %s", "\udcff"),
        record("two\nlines"),
        record(OSError(2, "no such thing")),
        record("x" * 300_000),
        record("a bug, met by %r", "create", problem=raised()),
        record("a bug, met by nobody", problem=RecursionError()),
    ],
    ids=lambda said: str(said["msg"])[:20],
)
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_line_is_what_logging_writes(said: dict[str, Any], encoding: str, tmp_path: Path) -> None:
    """Its prefix, its text, what cannot be encoded, and the traceback of a bug."""
    usual = io.TextIOWrapper(io.BytesIO(), encoding, "backslashreplace")
    stream = logging.StreamHandler(usual)
    stream.setFormatter(logging.Formatter("gpuportiond: %(message)s"))
    stream.handle(logging.LogRecord("gpuportiond", logging.INFO, __file__, 1, func="f", sinfo=None, **said))
    with (tmp_path / "log").open("w", encoding=encoding, errors="backslashreplace") as file:
        Lines(file).handle(Line("gpuportiond", logging.INFO, __file__, 1, func="f", sinfo=None, **said))
    assert isinstance(usual.buffer, io.BytesIO)
    assert (tmp_path / "log").read_bytes() == usual.buffer.getvalue()


def test_what_is_logged_anywhere_goes_to_it_from_info_on(tmp_path: Path) -> None:
    """Also by loggers that were there before."""
    root, log = logging.getLogger(), logging.getLogger("gpuportion-test")
    root.handlers[:] = []
    with (tmp_path / "log").open("w") as file:
        begin(file)
        log.debug("unsaid")
        log.info("first")
        log.warning("second")
        try:
            raise KeyError("third")
        except KeyError:
            log.exception("a bug")
        # past the stream's buffer: it is there before that is closed
        told = (tmp_path / "log").read_text().splitlines()
    assert told[:3] == ["gpuportiond: first", "gpuportiond: second", "gpuportiond: a bug"]
    assert told[3] == "Traceback (most recent call last):" and told[-1] == "KeyError: 'third'"


def test_without_stderr_there_is_no_log(capsys: pytest.CaptureFixture[str]) -> None:
    """Which stops nobody."""
    logging.getLogger().handlers[:] = []
    begin(None)
    logging.getLogger("gpuportion-test").info("unheard")
    assert capsys.readouterr() == ("", "")


def test_lines_of_several_threads_are_whole() -> None:
    """Also those that are longer than a pipe holds."""
    read, write = os.pipe()
    sizes = range(1, 130_000, 9_999)
    with open(read, "rb") as ours, open(write, "w") as theirs:
        lines = Lines(theirs)

        def say(letter: str) -> None:
            for size in sizes:
                lines.handle(Line("x", logging.INFO, "", 0, letter * size, (), None))

        threads = [threading.Thread(target=say, args=(letter,)) for letter in "abcd"]
        for thread in threads:
            thread.start()
        found = [ours.readline().decode() for _ in range(len(threads) * len(sizes))]
        for thread in threads:
            thread.join()
    assert sorted(found) == sorted(f"gpuportiond: {letter * size}\n" for letter in "abcd" for size in sizes)


def test_a_log_that_cannot_be_written_stops_nobody(capsys: pytest.CaptureFixture[str]) -> None:
    """A reader that has gone, and a message that doesn't fit its arguments, are told on stderr where there is one."""
    read, write = os.pipe()
    with open(write, "w") as theirs:
        lines = Lines(theirs)
        os.close(read)
        lines.handle(Line("x", logging.INFO, "", 0, "unheard", (), None))
        lines.handle(Line("x", logging.INFO, "", 0, "%d", ("word",), None))
    told = capsys.readouterr().err
    assert "BrokenPipeError" in told and "Message: 'unheard'" in told and "Arguments: ('word',)" in told
