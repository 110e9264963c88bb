"""Feeds a target with inputs until the time is over.

    python -m tests.fuzz spec|ledger|rules|socket [--seconds 60] [--seed N] [--keep]

It begins with the inputs in tests/corpus/TARGET. Where the code under test runs in this process, atheris then looks for
inputs that reach code which none before did, and `--keep` adds those to the corpus. What it cannot see into, the C of
the ledger and the daemon behind its socket, gets random inputs; so does all where atheris is not installed. An input
that breaks something is written to build/fuzz, and the status is not 0."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

TARGETS: Final = {"spec": True, "rules": True, "ledger": False, "socket": False}
"""Whether the fuzzer sees into it."""

CORPUS: Final = Path(__file__).parents[1] / "corpus"
FOUND: Final = Path(__file__).parents[2] / "build" / "fuzz"
LONGEST: Final = 512
"""Bytes of an input; a few dozen make a whole document."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.fuzz")
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args()
    FOUND.mkdir(parents=True, exist_ok=True)
    if TARGETS[options.target] and importlib.util.find_spec("atheris"):
        _guided(options)
    else:
        run = importlib.import_module(f"tests.fuzz.{options.target}_target").run
        _blind(options, run)


def _guided(options: argparse.Namespace) -> None:
    import atheris

    with atheris.instrument_imports(include=["gpuportion"]):
        target = importlib.import_module(f"tests.fuzz.{options.target}_target")
    seeds = CORPUS / options.target
    seeds.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="gpuportion-fuzz-") as scratch:
        folders = [str(seeds)] if options.keep else [scratch, str(seeds)]
        flags = [
            f"-max_total_time={options.seconds}",
            f"-max_len={LONGEST}",
            "-timeout=20",
            "-rss_limit_mb=2048",
        ]
        flags += ["-len_control=0", "-reduce_inputs=1", f"-seed={options.seed}"]
        flags += [f"-artifact_prefix={FOUND}/{options.target}-", "-print_final_stats=1"]
        atheris.Setup([sys.argv[0], *flags, *folders], target.run)
        atheris.Fuzz()


def _blind(options: argparse.Namespace, run: Callable[[bytes], None]) -> None:
    seed = options.seed or random.randrange(1 << 32)
    chance = random.Random(seed)
    kept = sorted((CORPUS / options.target).glob("*"))
    end, count = time.monotonic() + options.seconds, 0
    inputs = [path.read_bytes() for path in kept]
    while time.monotonic() < end or inputs:
        data = inputs.pop() if inputs else chance.randbytes(chance.randrange(LONGEST))
        try:
            run(data)
        except BaseException:
            place = FOUND / f"{options.target}-crash-{seed}-{count}"
            place.write_bytes(data)
            print(f"seed {seed}, input {count}: {place}", file=sys.stderr)
            raise
        count += 1
    print(f"{count} inputs, seed {seed}")


if __name__ == "__main__":
    main()
