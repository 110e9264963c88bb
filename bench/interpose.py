"""What the interception library costs: nanoseconds a call, over the bare simulated driver, in the same run.

    python bench/interpose.py [--build DIR]

The last line is one JSON object. `added_ns` and `added_ns_100k`: to a cuMemAlloc+cuMemFree pair, without and with
100 000 live blocks; each the worse of 4 KiB and 2 MiB blocks (the two are in `by_size`). `forwarded_added_ns`: to a
call that is only forwarded. `start_added_ms`: to starting /bin/true preloaded.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

TARGETS = {"added_ns": 150.0, "forwarded_added_ns": 3.0, "start_added_ms": 0.15}
GRANT = 60_000_000_000


def _numbers(*command: str | Path, env: dict[str, str] | None = None) -> list[float]:
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    return [float(line) for line in done.stdout.split()]


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
    return {
        "native_ns": max(small, large),
        "added_ns": max(added_small, added_large),
        "added_ns_100k": max(small_100k, large_100k),
        "forwarded_added_ns": forwarded,
        "start_added_ms": start,
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
