"""What the launcher, the hooks and the daemon add to the time in which a container is started and removed.

A round is create + start + delete + delete --force, the four calls that containerd makes for one `docker run`,
of a container whose only program ends at once; the time is that of the calls, not of the container. Each round
takes one measure of four kinds in random order, close to each other in time:

    bare, bare again   runc by itself, twice: the difference is the noise of this machine
    unrequested        gpuportion-runtime, a container that asks for nothing
    granted            gpuportion-runtime, a portion of a simulated GPU, by a real daemon

What is told is the median of the differences within the rounds. The last line is one JSON object:

    runc_ms               median of the bare round
    aa_ms                 the same estimate where the truth is 0: bare again - bare
    added_ms              granted - bare
    added_unrequested_ms  unrequested - bare
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.support.bundle import SYSTEM_PATH, Bundle, low_level, spec
from tests.support.daemon import Daemon

from gpuportion import paths

KINDS: Final = ("bare", "bare again", "unrequested", "granted")
REQUEST: Final = "GPU_MEMORY_LIMIT=1G"
ROUNDS: Final = 100
WARM_UP: Final = 5
TARGETS: Final = {"added_ms": 8.0, "added_unrequested_ms": 2.0}
PR_SET_CHILD_SUBREAPER: Final = 36


class Engine:
    """Makes containerd's four calls, as its shim does: it is the reaper of what runc leaves behind."""

    def __init__(self, bundle: Bundle, runtime: str, run_dir: Path) -> None:
        self.bundle = bundle
        self.commands = {
            "bare": runtime,
            "bare again": runtime,
            "unrequested": paths.package_file("bin/gpuportion-runtime"),
            "granted": paths.package_file("bin/gpuportion-runtime"),
        }
        self.env = {"PATH": SYSTEM_PATH, "GPUPORTION_RUNTIME": runtime, "GPUPORTION_RUN_DIR": str(run_dir)}
        self.log = bundle.folder / "log.json"
        self.pid_file = bundle.folder / "init.pid"
        self._names = 0
        if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
            raise SystemExit("this process cannot become a reaper")

    def measure(self, kind: str) -> float:
        """Milliseconds of one round of this kind."""
        self._names += 1
        name = f"gpuportion-bench-{os.getpid()}-{self._names}"
        self.bundle.write(spec("true", env=[REQUEST] if kind == "granted" else []))
        options = ["--bundle", str(self.bundle.folder), "--pid-file", str(self.pid_file)]
        spent = self._timed(kind, ["create", *options, name]) + self._timed(kind, ["start", name])
        os.waitpid(int(self.pid_file.read_text()), 0)
        spent += self._timed(kind, ["delete", name]) + self._timed(kind, ["delete", "--force", name])
        edited = "hooks" in json.loads(self.bundle.config.read_text())
        if edited != (kind == "granted"):
            raise SystemExit(f"a container of the kind {kind!r} was {'' if edited else 'not '}edited")
        return spent * 1000

    def _timed(self, kind: str, words: Sequence[str]) -> float:
        program = self.commands[kind]
        before = ["--root", str(self.bundle.root), "--log", str(self.log), "--log-format", "json"]
        began = time.perf_counter()
        pid = os.posix_spawn(program, [program, *before, *words], self.env, file_actions=QUIET)
        _, status = os.waitpid(pid, 0)
        spent = time.perf_counter() - began
        # The second delete finds nothing, and --force says that this is fine.
        if status != 0:
            raise SystemExit(f"{program} {' '.join(words)} failed: {self.log.read_text()}")
        return spent


QUIET: Final = [(os.POSIX_SPAWN_OPEN, fd, "/dev/null", os.O_RDWR, 0) for fd in (0, 1, 2)]


def rounds(engine: Engine, count: int) -> list[Mapping[str, float]]:
    done: list[Mapping[str, float]] = []
    for i in range(WARM_UP + count):
        order = random.sample(KINDS, len(KINDS))
        measured = {kind: engine.measure(kind) for kind in order}
        if i >= WARM_UP:
            done.append(measured)
    return done


def differences(measured: Sequence[Mapping[str, float]], kind: str) -> list[float]:
    return [each[kind] - each["bare"] for each in measured]


def line(name: str, values: Sequence[float]) -> str:
    quarters = statistics.quantiles(values, n=4)
    return f"{name:24}{quarters[1]:8.2f} ms   (quarters {quarters[0]:.2f} .. {quarters[2]:.2f})"


def report(measured: Sequence[Mapping[str, float]]) -> dict[str, float]:
    bare = [each["bare"] for each in measured]
    print(line("runc", bare))
    print(line("runc again, added", differences(measured, "bare again")))
    print(line("without a request, added", differences(measured, "unrequested")))
    print(line("with a grant, added", differences(measured, "granted")))
    return {
        "runc_ms": round(statistics.median(bare), 2),
        "aa_ms": round(statistics.median(differences(measured, "bare again")), 2),
        "added_ms": round(statistics.median(differences(measured, "granted")), 2),
        "added_unrequested_ms": round(statistics.median(differences(measured, "unrequested")), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="default: %(default)s")
    parser.add_argument(
        "--folder", default="/dev/shm", help="where state lies, a tmpfs; default: %(default)s"
    )
    options = parser.parse_args()
    runtime = low_level("runc")
    if runtime is None or os.geteuid() != 0:
        raise SystemExit("needs runc, and root to run containers")
    # All of it lies under /run on a real host (runc's state, the bundle, our pages): on a tmpfs.
    with tempfile.TemporaryDirectory(prefix="gpuportion-bench-", dir=options.folder) as name:
        folder = Path(name)
        with Daemon(folder) as daemon:
            measured = rounds(Engine(Bundle(folder), runtime, daemon.run_dir), options.rounds)
        result = report(measured)
    for key, most in TARGETS.items():
        print(f"{key}: target at most {most:g}, {'met' if result[key] <= most else 'MISSED'}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
