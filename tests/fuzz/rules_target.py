"""The administrator's file: any text is a mistake with its line, or rules that say the same when they are written out
and read again."""

from __future__ import annotations

import atexit
import os
import tempfile
from decimal import Decimal
from typing import Final

from gpuportion.allocator import policy_file, policy_keys
from gpuportion.errors import GpuportionError
from tests.fuzz.source import Source

LINES: Final = """\
container:
  max-memory: 40G
  max-gpus: 4
user:
  max-memory: 80G
  max-containers: 8
users:
  alice: {max-memory: 160G}
  1000: {max-containers: unlimited}
user-annotation: trust
default: {memory-limit: 2G}
minimum: 512Mi
margin: 0
overcommit: 1.5
requests-from: annotations
placement: spread
runtimes: [runc, /usr/bin/crun]
audit: stop
""".splitlines()
_fd, PLACE = tempfile.mkstemp(prefix="gpuportion-fuzz-")
atexit.register(os.unlink, PLACE)


def run(data: bytes) -> None:
    source = Source(data)
    os.ftruncate(_fd, 0)
    os.pwrite(_fd, source.rest() if source.number(1) == 0 else _file(source), 0)
    try:
        rules = policy_file.read(PLACE)
    except GpuportionError as problem:
        assert problem.code in ("GP306", "GP307") and PLACE in problem.text
        assert problem.text.encode()
        return
    assert rules.minimum > 0 and rules.margin >= 0 and rules.overcommit >= Decimal(1)
    assert rules.max_memory is None or rules.max_memory > 0
    written = policy_keys.render(policy_keys.written(rules))
    assert policy_file.parse(written, "again") == rules, written


def _file(source: Source) -> bytes:
    """Known lines, each perhaps with other bytes behind its colon."""
    lines: list[bytes] = []
    while not source.is_dry and len(lines) < 40:
        line = source.one_of(LINES).encode()
        if source.number(2) == 0:
            line = line.rpartition(b":")[0] + b": " + source.take(source.number(31))
        lines.append(line)
    return b"\n".join(lines)
