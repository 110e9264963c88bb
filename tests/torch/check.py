"""`make torch-check`: PyTorch's three allocators under a grant, on the simulated driver.

An unmodified PyTorch with CUDA, on the stand-in runtime, under `gpuportion exec`: each allocator runs to
torch.OutOfMemoryError, frees, goes on, and shares the grant with a second process. What it saw, and what the simulated
device had given out at that moment, becomes a table of claims; the exit status is 1 if one of them is false.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE
from typing import Any, Final

from gpuportion import simgpu
from tests.support.daemon import Daemon
from tests.torch import environment

ROOT: Final = Path(__file__).resolve().parents[2]
PROGRAM: Final = Path(__file__).with_name("program.py")
ALLOCATORS: Final = {
    "caching": "backend:native",
    "expandable segments": "expandable_segments:True",
    "cudaMallocAsync": "backend:cudaMallocAsync",
}
BOARD: Final = "h100-80gb:1"
ASKED: Final = "4G"
MIB: Final = 1 << 20
GRANT: Final = 4 * 10**9 // MIB * MIB
SLACK: Final = 128 * MIB
"""What may be left when a piece of 64 MiB is refused: that piece, and what PyTorch and pools round up to."""
OUT_OF_MEMORY: Final = "OutOfMemoryError"


@dataclass(frozen=True)
class Seen:
    """A step of the program: what it said, and what the device had given out."""

    facts: dict[str, Any]
    device: int

    def __getitem__(self, name: str) -> Any:
        return self.facts[name]


@dataclass(frozen=True)
class Claim:
    what: str
    measured: str
    holds: bool


def mib(size: int) -> str:
    return f"{size // MIB} MiB"


def claims(seen: dict[str, Seen]) -> Iterator[Claim]:
    """All that must be true of one allocator's run."""
    start, at_once, full, again = seen["start"], seen["at once"], seen["full"], seen["again"]
    yield Claim("mem_get_info shows the grant", mib(start["total"]), start["total"] == GRANT)
    yield Claim("so do the properties", mib(start["properties"]), start["properties"] == GRANT)
    yield Claim("the whole grant at once is refused", at_once["error"], at_once["error"] == OUT_OF_MEMORY)
    yield Claim("pieces end in a refusal", full["error"], full["error"] == OUT_OF_MEMORY)
    room = start["free"] - full["bytes"]
    yield Claim("what was free is had by then", f"all but {mib(room)}", 0 <= room < SLACK)
    yield Claim("the device gave no more than the grant", mib(full.device), full.device <= GRANT)
    yield Claim("what was there is intact", str(again["intact"]), again["intact"] is True)
    yield Claim("what is freed is had again", mib(again["bytes"]), again["bytes"] == full["bytes"])
    lost = start["free"] - seen["empty"]["free"]
    yield Claim("emptied, as much is free as before", f"{mib(lost)} less", 0 <= lost <= SLACK)
    kernels = seen["kernels"]
    ran = kernels["pinned"] and kernels["shape"] == [1 << 20]
    yield Claim("kernels, graphs, pinned memory", "taken" if ran else "not taken", ran)
    yield from shared(seen["two"], seen["one again"])


def shared(two: Seen, after: Seen) -> Iterator[Claim]:
    """Two processes in one grant."""
    both = two["mine"] + two["theirs"]
    ended = two["error"] == OUT_OF_MEMORY and two["total"] == GRANT
    yield Claim("a second process is refused as well", two["error"], ended)
    yield Claim("two share the grant", f"{mib(both)}, {mib(two['free'])} free", two["free"] < SLACK)
    yield Claim("the device gave both no more", mib(two.device), both <= two.device <= GRANT)
    yield Claim("what the second had is free after it", mib(after["bytes"]), after["bytes"] > both)


def run(daemon: Daemon, python: Path, settings: str) -> dict[str, Seen]:
    """The program's steps under one allocator."""
    command = [sys.executable, "-m", "gpuportion", "exec", "--gpu-memory", ASKED, "--quiet", "--"]
    env = {**daemon.env, "PYTORCH_CUDA_ALLOC_CONF": settings, "PYTORCH_ALLOC_CONF": settings}
    said = daemon.run_dir.parent / "stderr"
    with said.open("w") as stderr:
        process = subprocess.Popen(
            [*command, str(python), str(PROGRAM)], env=env, stdin=PIPE, stdout=PIPE, stderr=stderr, text=True
        )
    assert process.stdin and process.stdout
    seen: dict[str, Seen] = {}
    for line in process.stdout:
        facts = json.loads(line)
        seen[facts.pop("step")] = Seen(facts, given_out(daemon))
        process.stdin.write("\n")
        process.stdin.flush()
    if process.wait(60):
        status = process.returncode
        raise SystemExit(f"torch-check: with {settings} the program ended with {status}:\n{said.read_text()}")
    return seen


def given_out(daemon: Daemon) -> int:
    """Bytes of the simulated device that processes hold."""
    status = simgpu.status(str(daemon.run_dir / "sim"))
    assert status is not None
    return sum(holder.bytes for holder in status.holders)


def main() -> int:
    if os.geteuid() != 0:
        raise SystemExit("torch-check starts a daemon of its own: it needs root.")
    python = environment.prepared(ROOT / "build" / "torch")
    failed = 0
    with (
        tempfile.TemporaryDirectory(prefix="gpuportion-torch-") as folder,
        Daemon(Path(folder), BOARD) as daemon,
    ):
        for name, settings in ALLOCATORS.items():
            print(f"\n{name} ({settings}), {ASKED} = {mib(GRANT)}", flush=True)
            seen = run(daemon, python, settings)
            daemon.until(lambda: not daemon.ps())
            left = given_out(daemon)
            made = [*claims(seen), Claim("ended, nothing is held", mib(left), left == 0)]
            for claim in made:
                print(f"  {claim.what:42}{claim.measured:32}{'ok' if claim.holds else 'FALSE'}")
            failed += sum(not claim.holds for claim in made)
    print(f"\n{failed} claims are false." if failed else "\nEvery claim holds.")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
