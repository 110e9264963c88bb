"""python -m tools.mutants: both kinds of mutants in private copies; the last line is one JSON object.

Exit status 0: every mutant was killed or argued. 1: some lived, or the tables do not fit the tree. 2: usage.
"""

from __future__ import annotations

import argparse
import fcntl
import fnmatch
import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from tools.mutants import breakages, broken_builds, mutations, survivors
from tools.mutants.broken_builds import Outcome
from tools.mutants.private_tree import PLACE, ROOT, CopyError, Tree

WHAT: Final = ("breakages", "python")


def main(argv: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(argv)
    figures: dict[str, Any] = {}
    good = True
    try:
        with _alone():
            built = Tree("breakages")
            built.refresh()
            built.build()
            if "breakages" in options.what:
                figures["breakages"], fine = _breakages(built, options)
                good = good and fine
            if "python" in options.what:
                figures["python"], fine = _python(built, options)
                good = good and fine
    except CopyError as problem:
        print(problem, file=sys.stderr)
        return 1
    print(json.dumps(figures))
    return 0 if good else 1


def _parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="make mutants", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    made.add_argument("what", nargs="*", default=list(WHAT), metavar="|".join(WHAT), help="default: both")
    made.add_argument(
        "--only", action="append", default=[], metavar="GLOB", help="names of mutants; may be repeated"
    )
    made.add_argument(
        "--tenths", type=int, default=10, choices=range(1, 11), help="of the Python mutants (default 10)"
    )
    made.add_argument("--seed", type=int, default=1, help="which tenths (default: 1)")
    return made


@contextmanager
def _alone() -> Iterator[None]:
    """One run at a time: the copies are kept between runs."""
    PLACE.mkdir(parents=True, exist_ok=True)
    with open(PLACE / ".lock", "w", encoding="ascii") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CopyError(f"another run is using {PLACE}; wait for its end") from None
        yield


def _breakages(tree: Tree, options: argparse.Namespace) -> tuple[dict[str, Any], bool]:
    chosen = [one for one in breakages.load() if _is_chosen(one.name, options.only)]
    wrong = [why for one in chosen if (why := breakages.complaint(one, ROOT))]
    if wrong:
        raise CopyError("tools/mutants/table does not fit the tree:\n" + "\n".join(wrong))
    began = time.monotonic()
    failing = broken_builds.unbroken(tree, chosen) if chosen else ""
    if failing:
        raise CopyError(f"the tests that must go red are not green without a breakage:\n{failing}")
    results = []
    for one in chosen:
        result = broken_builds.try_one(tree, one)
        results.append(result)
        print(f"{result.outcome.value:9} {result.seconds:5.1f} s  {result.name}", flush=True)
        if result.outcome is not Outcome.KILLED:
            print(result.detail, flush=True)
    counts = {outcome.value: sum(one.outcome is outcome for one in results) for outcome in Outcome}
    figures = {"mutants": len(results), **counts, "seconds": round(time.monotonic() - began)}
    return figures, counts["killed"] == len(results)


def _is_chosen(name: str, patterns: Sequence[str]) -> bool:
    return not patterns or any(fnmatch.fnmatch(name, pattern) for pattern in patterns)


def _python(built: Tree, options: argparse.Namespace) -> tuple[dict[str, Any], bool]:
    argued, kinds = survivors.load()
    tree = Tree("python", real_folders=True)
    tree.refresh()
    tree.take_built(built)
    counts, met, seconds = mutations.run(tree, tenths=options.tenths, seed=options.seed, only=options.only)
    alive = [one for one in met if one.status != mutations.SLOW]
    changes = [(one.function, one.old, one.new) for one in alive]
    open_ones = [
        one
        for one, change in zip(alive, changes, strict=True)
        if not any(entry.covers(*change) for entry in argued)
        and not any(kind.covers(*change) for kind in kinds)
    ]
    for one in open_ones:
        print(f"{one.status}: {one.function}  ({one.name})\n  - {one.old}\n  + {one.new}")
    whole = options.tenths == 10 and not options.only
    stale = survivors.unneeded(argued, [(one.function, one.old, one.new) for one in met]) if whole else []
    for entry in stale:
        print(
            f"survivors.toml argues a mutant that is killed or gone: {entry.function}: {entry.old} -> {entry.new}"
        )
    later = sum(mutations.is_open(one.function) for one in open_ones)
    figures = {
        "mutants": counts.total(),
        "killed": counts.total() - len(alive),
        "argued": len(alive) - len(open_ones),
        "open": later,
        "survived": len(open_ones) - later,
        "seconds": round(seconds),
    }
    return figures, later == len(open_ones) and not stale


if __name__ == "__main__":
    sys.exit(main())
