"""A program that uses PyTorch as programs do, run under a grant by check.py with an interpreter that has PyTorch.

It writes a JSON object a line, of what it sees and gets, and waits for a line after each, so that the device can be
looked at from outside meanwhile. Judges nothing.

    program.py             alone, then beside a second one of its kind in the same grant
    program.py second      that second one: fills what is left
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import torch

PIECE = 64 << 20
LARGE = 1 << 30


def tell(step: str, **facts: Any) -> None:
    print(json.dumps({"step": step, **facts}), flush=True)
    if not sys.stdin.readline():
        raise SystemExit("whoever listened has gone")


def take(size: int) -> Any:
    return torch.empty(size, dtype=torch.uint8, device="cuda")


def fill() -> tuple[list[Any], str]:
    """Pieces until PyTorch refuses one, and the name of its refusal."""
    held: list[Any] = []
    while True:
        try:
            held.append(take(PIECE))
        except RuntimeError as refusal:
            return held, type(refusal).__name__


def free() -> int:
    return int(torch.cuda.mem_get_info()[0])


def drop(held: list[Any]) -> None:
    held.clear()
    torch.cuda.empty_cache()


def alone() -> None:
    properties = torch.cuda.get_device_properties(0)
    probe = torch.arange(1 << 20, dtype=torch.int32).cuda()
    start, total = torch.cuda.mem_get_info()
    tell("start", free=start, total=total, properties=properties.total_memory)
    try:
        take(total)
        refusal = "none"
    except RuntimeError as error:
        refusal = type(error).__name__
    tell("at once", error=refusal, free=free())
    held, refusal = fill()
    tell("full", bytes=len(held) * PIECE, error=refusal, free=free())
    intact = bool((probe.cpu() == torch.arange(1 << 20, dtype=torch.int32)).all())
    del held[len(held) // 2 :]
    kept = len(held)
    again, refusal = fill()
    tell("again", bytes=(kept + len(again)) * PIECE, error=refusal, intact=intact)
    del again
    drop(held)
    tell("empty", free=free())


def kernels() -> None:
    """Kernels are taken and do nothing; a graph is captured and replayed."""
    ones = torch.zeros(1 << 20, device="cuda").add_(1)
    stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        more = ones + 1
    graph.replay()
    torch.cuda.synchronize()
    event = torch.cuda.Event()
    event.record()
    event.synchronize()
    pinned = torch.empty(PIECE, dtype=torch.uint8, pin_memory=True)
    tell("kernels", shape=list(more.shape), pinned=pinned.is_pinned())
    del ones, more, graph
    torch.cuda.empty_cache()


def beside() -> None:
    mine = [take(LARGE)]
    second = subprocess.Popen(
        [sys.executable, __file__, "second"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert second.stdin and second.stdout
    theirs = json.loads(second.stdout.readline())
    both = free()
    tell("two", mine=LARGE, theirs=theirs["bytes"], error=theirs["error"], total=theirs["total"], free=both)
    second.communicate("\n", timeout=60)
    held, _ = fill()
    tell("one again", bytes=LARGE + len(held) * PIECE)
    drop(held)
    drop(mine)


def second() -> None:
    held, refusal = fill()
    tell("second", bytes=len(held) * PIECE, error=refusal, total=torch.cuda.mem_get_info()[1])


if __name__ == "__main__":
    if sys.argv[1:] == ["second"]:
        second()
    else:
        alone()
        kernels()
        beside()
