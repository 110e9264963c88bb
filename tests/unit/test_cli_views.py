"""What `gpuportion ps` and `gpuportion node` make of the daemon's answers."""

from __future__ import annotations

import os
import pwd
from typing import Any

import pytest

from gpuportion.cli import node, ps

MIB = 1 << 20
GRANT: dict[str, Any] = {
    "container": "0123456789abcdef" * 4,
    "name": "train\x1b[2J",
    "user": os.getuid(),
    "kind": "container",
    "state": "active",
    "gpus": [
        {"index": 0, "uuid": "GPU-0", "limit": 3814 * MIB, "used": 612 * MIB, "peak": 700 * MIB},
        {"index": 3, "uuid": "GPU-3", "limit": 7629 * MIB, "used": 0, "peak": 0},
    ],
    "compute": None,
    "enforced_by": "interposer",
    "refusals": 2,
    "age_s": 61.5,
    "pids": [4711],
}


def test_a_grant_has_a_line_for_each_of_its_gpus() -> None:
    """Amounts as asked for and as nvidia-smi shows them; the id short, as docker prints it."""
    first, second = ps.lines([GRANT])
    assert first == {
        "CONTAINER": "0123456789ab",
        "NAME": "train?[2J",
        "USER": pwd.getpwuid(os.getuid()).pw_name,
        "GPU": "0",
        "GRANT": "4.00 GB (3814 MiB)",
        "USED": "612 MiB",
        "PEAK": "700 MiB",
        "COMPUTE": "",
        "ENFORCED-BY": "interposer",
        "REFUSALS": "2",
        "AGE": "1m",
    }
    assert (second["GPU"], second["GRANT"], second["USED"]) == ("3", "8.00 GB (7629 MiB)", "0 MiB")
    assert set(first) == set(ps.COLUMNS)


@pytest.mark.parametrize(("uid", "name"), [(0, "root"), (None, ""), (3_999_999_999, "3999999999")])
def test_a_user_is_named_where_there_is_a_name(uid: int | None, name: str) -> None:
    """A number stays a number; who is not known is nobody in particular."""
    assert ps.user(uid) == name


def test_a_gpu_is_shown_in_decimal_and_reserved_counts_what_nobody_was_granted() -> None:
    """The sizes of a node are compared with requests, which are decimal."""
    row = {
        "index": 0,
        "uuid": "GPU-0",
        "model": "NVIDIA A100-SXM4-80GB",
        "role": "fraction",
        "total": 85 * 10**9,
        "reserved": 10**9,
        "unmanaged": 5 * 10**8,
        "granted": 4 * 10**9,
        "free": 79 * 10**9,
        "used": 3 * 10**9,
        "health": "ok",
    }
    (line,) = node.lines([row])
    assert line == {
        "GPU": "0",
        "MODEL": "NVIDIA A100-SXM4-80GB",
        "ROLE": "fraction",
        "TOTAL": "85.00 GB",
        "RESERVED": "1.50 GB",
        "GRANTED": "4.00 GB",
        "FREE": "79.00 GB",
        "USED": "3.00 GB",
        "MIG": "",
        "HEALTH": "ok",
    }
    assert set(line) == set(node.COLUMNS)


def test_findings_have_a_line_each() -> None:
    """Who, how much, since when, and what is done; names come from containers, and may be hostile."""
    processes = [{"pid": 7, "name": "py\x1bthon", "held": MIB}, {"pid": 8, "name": "", "held": MIB}]
    over = {
        "kind": "over",
        "index": 1,
        "uuid": "GPU-1",
        "container": "0123456789abcdef" * 4,
        "name": "train",
        "engine": "docker",
        "held": 6 * 10**9,
        "limit": 4 * 10**9,
        "since_s": 61.0,
        "action": "reported",
        "processes": processes,
    }
    first, second = ps.findings([over, {**over, "kind": "stranger", "name": "", "limit": 0}])
    assert first == {
        "CONTAINER": "0123456789ab",
        "NAME": "train",
        "GPU": "1",
        "HELD": "6.00 GB",
        "GRANT": "4.00 GB",
        "FOR": "1m",
        "ACTION": "reported",
        "PROCESSES": "7 py?thon, 8",
    }
    assert set(first) == set(ps.FINDINGS)
    assert (second["GRANT"], second["NAME"]) == ("none", "")


def test_what_an_answer_had_no_room_for_is_said() -> None:
    """Nobody shall take a part for the whole."""
    assert ps.left_out({"left_out": 12}) == "12 more are not shown: one answer has no room for them."
    assert ps.left_out({}) == ""


def test_unaccounted_memory_is_said() -> None:
    """Only where there is any, which is not expected."""
    rows = [{"index": 0, "unaccounted": 0}, {"index": 3}, {"index": 2, "unaccounted": 10**9}]
    expected = "GPU 2: 1.00 GB unaccounted: in use, and the driver lists no process for it"
    assert node.notes(rows) == [expected]
