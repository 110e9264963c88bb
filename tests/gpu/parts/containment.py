"""Nothing gets beyond a grant, and nearly all of it can be had: every path of the driver to its refusal, several
grants, PyTorch's allocators (torch_claims.py), tenants side by side, processes that are killed.

What the device has given out is NVML's word, sampled all the while from outside.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from typing import Final

from tests.gpu import context, grants
from tests.gpu.claims import Report
from tests.gpu.grants import Grant
from tests.gpu.meter import Meter, mib, until
from tests.gpu.parts import torch_claims
from tests.gpu.session import EndedError, Session
from tests.gpu.setting import Setting

GB: Final = 10**9
MIB: Final = 1 << 20
GRANTS: Final = (1, 4, 20)
"""GB."""
MOST_PATHS: Final = (
    "linear",
    "pitched",
    "managed",
    "async",
    "pool",
    "handles",
    "mapped",
    "array",
    "mipmapped",
    "graph",
)
ALL_PATHS: Final = (*MOST_PATHS, "small")
OUT_OF_MEMORY: Final = 2
SHARE: Final = 0.98
CHUNKED: Final = {"async": 64 * MIB, "pool": 64 * MIB, "graph": 64 * MIB}
"""Bytes that may be left where pools grow by chunks: docs/libcap_mem.md, Bounds."""
KILLS: Final = 24
HEADROOM: Final = 2 * GB
"""Bytes of the device that are left alone."""


def run(where: Setting, report: Report) -> None:
    """All of it."""
    cost = context.cost(where)
    report.figure("a context", mib(cost), value=cost)
    room = where.device["total"] - where.device["used"] - HEADROOM
    for size in GRANTS[:1] if where.brief else GRANTS:
        limit = grants.whole_mib(size * GB)
        if limit > room:
            report.skip(f"{size} GB: every path", f"the device has {mib(room)} to spare")
            continue
        every_path(where, report, size, limit, cost)
    if room > 8 * GB:
        side_by_side(where, report, cost)
    else:
        report.skip("two tenants", f"the device has {mib(room)} to spare")
    storm(where, report, cost)
    torch_claims.run(where, report)


def every_path(where: Setting, report: Report, size: int, limit: int, cost: int) -> None:
    """Each path alone, in one process; then the next one must find as much free."""
    grant = grants.make(where, f"paths-{size}", limit, cost)
    piece = max(64 * MIB, 1 << (limit // 32).bit_length())
    names = ALL_PATHS if size <= 4 else MOST_PATHS
    command = grant.python("paths", str(limit), str(piece), *names)
    errors = f"{where.scratch}/paths-{size}.stderr"
    done = set()
    try:
        with Meter(where.uuid) as meter, Session(command, grants.environment(grant), errors) as client:
            for name in names:
                path(client, meter, report, f"{size} GB, {name}", name, grant)
                done.add(name)
    except EndedError as problem:
        for name in names:
            if name not in done:
                report.claim(f"{size} GB, {name}", False, "the client has ended", evidence=[str(problem)])
                return


def path(client: Session, meter: Meter, report: Report, what: str, name: str, grant: Grant) -> None:
    """What the client says at its fullest and when it has freed all, and what NVML says meanwhile."""
    meter.reset()
    full = client.hear()
    now = meter.now()
    client.go_on()
    empty = client.hear()
    peak = meter.peak()
    had = full["had"]
    enough = had >= SHARE * full["before"] or full["before"] - had <= CHUNKED.get(name, 0)
    holds = {
        "refused with out of memory and nothing else": full["refused"] == [OUT_OF_MEMORY],
        f"had at least {SHARE:.0%} of what was free": enough,
        "NVML never above the grant": peak <= grant.limit,
        "other memory intact": empty["intact"],
        "all free again": abs(empty["after"] - full["before"]) <= 2 * MIB,
    }
    false = [why for why, is_so in holds.items() if not is_so]
    told = f"{mib(had)} of {mib(full['before'])}, device {mib(now)}, at most {mib(peak)}"
    value = {"had": had, "before": full["before"], "device": now, "peak": peak, "limit": grant.limit}
    report.claim(
        what, not false, told, mib(grant.limit), value=value, evidence=[*false, str(full), str(empty)]
    )


def side_by_side(where: Setting, report: Report, cost: int) -> None:
    """Two grants of one GPU, both full: each has its own, and neither's refusals or frees change the other's."""
    limit = grants.whole_mib(4 * GB)
    made = [grants.make(where, f"tenant-{number}", limit, cost) for number in (1, 2)]
    with Meter(where.uuid) as meter:
        with _tenant(made[0], 0x11) as one, _tenant(made[1], 0x22) as two:
            seen = [one.hear(), two.hear()]
            for tenant in (one, two, one, two):
                tenant.go_on("again")
                tenant.hear()
            for tenant in (one, two):
                tenant.go_on("check")
            checked = [one.hear(), two.hear()]
            each = [meter.highest.each.get(tenant.pid, 0) for tenant in (one, two)]
        both = meter.peak()
    intact = all(check["intact"] for check in checked)
    refused = all(told["refused"] == OUT_OF_MEMORY and told["total"] == limit for told in seen)
    report.claim("two tenants fill their grants, and keep their memory", intact and refused,
                 f"{mib(seen[0]['had'])} and {mib(seen[1]['had'])}, intact: {intact}", mib(limit),
                 evidence=[str(seen), str(checked)])  # fmt: skip
    holds = both <= 2 * limit and all(used <= limit for used in each)
    report.claim("the device gave neither more than its grant", holds,
                 f"{mib(each[0])}, {mib(each[1])}, together {mib(both)}", mib(limit))  # fmt: skip


def _tenant(grant: Grant, mark: int) -> Session:
    errors = f"{grant.folder}/stderr"
    return Session(grant.python("hold", str(mark), str(64 * MIB)), grants.environment(grant), errors)


def storm(where: Setting, report: Report, cost: int) -> None:
    """Processes of one grant are killed at all kinds of moments; then all of it can be had again."""
    limit = grants.whole_mib(4 * GB)
    grant = grants.make(where, "storm", limit, cost)
    kills = 6 if where.brief else KILLS
    with Meter(where.uuid) as meter:
        before = meter.device()
        for number in range(kills // 3):
            for session in list(_started(grant, 3)):
                time.sleep(0.02 * (number % 7))
                session.process.send_signal(signal.SIGKILL)
                session.kill()
        gone = until(lambda: not meter.ours() and meter.device() <= before + 16 * MIB, 10)
        left = meter.device() - before
        with _tenant(grant, 0x33) as after:
            told = after.hear()
        peak = meter.peak()
    had = told["had"] + 64 * MIB > limit - cost
    report.claim(f"{kills} killed processes leave nothing on the device", gone, f"{mib(left)} left")
    report.claim("the whole grant can be had after them", had and told["refused"] == OUT_OF_MEMORY,
                 f"{mib(told['had'])} of {mib(limit - cost)}", evidence=[str(told)])  # fmt: skip
    report.claim("they never had more than the grant together", peak <= limit, mib(peak), mib(limit))


def _started(grant: Grant, count: int) -> Iterator[Session]:
    for number in range(count):
        command = grant.python("hold", str(number), str(32 * MIB))
        yield Session(command, grants.environment(grant), f"{grant.folder}/killed.stderr")
