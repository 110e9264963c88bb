"""What the interception library costs: nanoseconds a call, over the bare simulated driver, in the same run.

    python bench/interpose.py [--build DIR]

The last line is one JSON object. `added_ns` and `added_ns_100k`: to a cuMemAlloc+cuMemFree pair, without and with
100 000 live blocks; each the worse of 4 KiB and 2 MiB blocks (the two are in `by_size`). `forwarded_added_ns`: to a
call that is only forwarded. `start_added_ms`: to starting /bin/true preloaded.

In time computed, not passed (interpose_crowd.c): `added_ns_1m`: with 1 000 000 live blocks, the worse of both sizes;
`async_added_ns`: to a pair of cuMemAllocAsync and cuMemFreeAsync (both medians of nine series); `eight_threads_ratio`:
what is added to a pair of 2 MiB in 8 threads at once (`added_ns_8_threads`, the median of the threads) by what is
added in one, before a driver whose threads share nothing: then all that they cost each other is the library's.
`added_ns_8_threads_of_a_locked_driver`: the same before the simulated driver, whose threads wait for its one lock; the
library changes how they fall in with each other there, so it varies by hundreds of ns. In both, all threads are at the
bare driver or all at the library. `added_ns_64_procs`: what 64 other processes in the container, which hold a block
each, add to what is added without them. One and eight, without and with, are taken in nine rounds of both.
`launch_added_ns`: to cuLaunchKernel. `added_instructions`: to each pair, as callgrind counts them, where there is
valgrind; these depend on no load.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

TARGETS = {
    "added_ns": 100.0,
    "added_ns_1m": 130.0,
    "async_added_ns": 150.0,
    "eight_threads_ratio": 1.5,
    "added_ns_64_procs": 10.0,
    "launch_added_ns": 2.0,
    "forwarded_added_ns": 3.0,
    "start_added_ms": 0.15,
}
COUNTED = ("small", "large", "async", "launch")
FEW, MANY = 1000, 3000
"""Calls in two runs under callgrind: the difference is free of the start."""
GRANT = 60_000_000_000


def _numbers(*command: str | Path, env: dict[str, str] | None = None) -> list[float]:
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    return [float(line) for line in done.stdout.split()]


def crowded(program: str, real: str, ours: Path, env: dict[str, str]) -> dict[str, object]:
    """What interpose_crowd says."""

    def said(*words: str) -> list[float]:
        return _numbers(program, real, ours, *words, env=env)

    _, locked = said("threads", "8")
    _, beside = said("processes", "64")
    return {
        "added_ns_1m": max(said("live", "1000000")),
        "async_added_ns": said("async")[1],
        "added_ns_8_threads_of_a_locked_driver": locked,
        "added_ns_64_procs": beside,
        "launch_added_ns": said("launch")[1],
        "added_instructions": instructions(program, real, ours, env) if shutil.which("valgrind") else None,
    }


def threads(program: str, folder: Path) -> dict[str, float]:
    """Eight against one, before a driver whose threads share nothing."""
    from tests.native import capped
    from tests.support import native

    driver = Path(native.built("interpose_unshared", "libcap_mem")).with_suffix(".so")
    grant = capped.make_grant(folder / "unshared", str(driver), "/none", [f"{'01' * 16}:{GRANT}:0"])
    one, eight = _numbers(program, driver, grant.libcuda, "threads", "8")
    return {
        "added_ns_1_thread": one,
        "added_ns_8_threads": eight,
        "eight_threads_ratio": round(eight / one, 2),
    }


def instructions(program: str, real: str, ours: Path, env: dict[str, str]) -> dict[str, int]:
    """Of each kind of pair: through the library less of the driver itself."""

    def counted(what: str, calls: int) -> int:
        command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", program, real, str(ours)]
        done = subprocess.run(
            [*command, "count", what, str(calls)], env=env, capture_output=True, text=True, check=True
        )
        return int(done.stderr.rpartition("Collected :")[2].split()[0])

    def each(what: str) -> float:
        return (counted(what, MANY) - counted(what, FEW)) / (MANY - FEW)

    return {what: round(each(what) - each(f"native-{what}")) for what in COUNTED}


def measure(folder: Path) -> dict[str, object]:
    """All the numbers."""
    from tests.native import capped
    from tests.support import native

    program = native.built("interpose_bench", "libcap_mem")
    driver = capped.simulate(folder, context=224 * capped.MIB)
    grant = driver.grant(GRANT, context=224 * capped.MIB)
    env = {**os.environ, **grant.env}
    real = f"{driver.sim.lib}/libcuda.so.1"
    small, added_small, large, added_large, *rest = _numbers(program, "calls", real, grant.libcuda, env=env)
    _, small_100k, _, large_100k, _, forwarded = rest
    (start,) = _numbers(program, "start", grant.libcuda)
    crowd = native.built("interpose_crowd", "libcap_mem")
    return {
        "native_ns": max(small, large),
        "added_ns": max(added_small, added_large),
        "added_ns_100k": max(small_100k, large_100k),
        "forwarded_added_ns": forwarded,
        "start_added_ms": start,
        **crowded(crowd, real, grant.libcuda, env),
        **threads(crowd, folder),
        "by_size": {
            "4 KiB": {"native_ns": small, "added_ns": added_small, "added_ns_100k": small_100k},
            "2 MiB": {"native_ns": large, "added_ns": added_large, "added_ns_100k": large_100k},
        },
    }


def main() -> None:
    """Builds what is missing, measures, prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--build", help="a CMake build folder; default: build/bench, made if it is missing")
    root = Path(__file__).resolve().parents[1]
    os.environ["GPUPORTION_TEST_BUILD"] = parser.parse_args().build or str(root / "build" / "bench")
    with tempfile.TemporaryDirectory() as folder:
        numbers = measure(Path(folder))
    for key, target in TARGETS.items():
        print(f"{key}: {numbers[key]} (target: at most {target})")
    print(json.dumps(numbers))


if __name__ == "__main__":
    main()
