"""Runs the parts of the suite, each in a process of its own and within its time, prints a table and writes JSON.

    run [--only PART ...] [--python PYTHON] [--out FOLDER] [--sim BOARD] [--brief]

The exit status: 0, every claim that was made holds; 1, one is false, a part did not end in its time, or nothing at all
could be shown; 2, wrong usage; 3, there is no GPU to run on. What could not be run is said and counted, and never
counts as held. Nothing is changed on the machine: no clocks, no MIG mode, no reset; files are written below one
temporary folder, and below /run/gpuportion/self, an empty folder that a private mount namespace needs.
"""

from __future__ import annotations

import argparse
import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Final

from tests.gpu import claims, setting
from tests.gpu.claims import Said
from tests.gpu.setting import NoGpuError, Setting


@dataclass(frozen=True)
class Part:
    name: str
    what: str
    seconds: float


PARTS: Final = (
    Part("first", "the library is accepted: preloaded and mounted, by C, PyTorch, nvidia-smi", 75),
    Part("containment", "no path gets beyond the grant, and nearly all of it can be had", 120),
    Part("views", "nvidia-smi, NVML, CUDA and PyTorch tell the same", 40),
    Part("resolution", "every way to the driver leads through the library", 80),
    Part("assumptions", "the driver takes memory as the library and simgpu assume", 40),
    Part("traces", "what allocates comes to functions that are hooked", 60),
    Part("overhead", "calls, steps and tokens cost as much as without the library", 100),
    Part("start", "a first context is there as soon as without the library", 35),
    Part("containers", "the whole path by runc, two tenants", 45),
    Part("offers", "limits that this machine's driver and kernel have themselves", 10),
    Part("tools", "NVIDIA's tools work on clients in a grant", 90),
)
"""In this order: what matters most comes first, for the time of all of them together is bounded, too."""
TOTAL: Final = 465.0
"""Seconds for everything: under eight minutes with what comes before and after."""
PATIENT: Final = 6
"""Times as long may it take with --brief, which tests the suite on machines that are busy with other tests."""


def main(pack: str) -> int:
    """The suite; the exit status."""
    options = _options()
    scratch = tempfile.mkdtemp(prefix="gpuportion-gpu-", dir=_exec_folder())
    try:
        where = _find(pack, scratch, options)
    except NoGpuError as problem:
        print(f"tests/gpu/run: {problem} Nothing was run.", file=sys.stderr)
        return 3
    else:
        return _run(where, options)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [part.name for part in PARTS]
    parser.add_argument("--only", action="append", choices=names, metavar="PART", help=" ".join(names))
    parser.add_argument(
        "--python", default="", help="the interpreter that has PyTorch (default: the first found)"
    )
    parser.add_argument("--out", type=Path, help="a folder for results.json, and what parts keep beside it")
    parser.add_argument("--sim", metavar="BOARD", help="run on a simulated GPU: a test of the suite itself")
    parser.add_argument("--brief", action="store_true", help="the smallest grant alone, and few repetitions")
    parser.add_argument(
        "--break",
        dest="broken",
        choices=BREAKAGES,
        help="leave the library out on purpose: the run must fail",
    )
    options = parser.parse_args()
    if options.broken and not options.sim:
        parser.error("--break is for --sim alone: without the library nothing bounds what is asked of a GPU")
    return options


BREAKAGES: Final = ("no-library",)


def _exec_folder() -> str:
    """A folder for libraries: /tmp, unless nothing there can be executed."""
    with suppress(OSError):
        if os.statvfs("/tmp").f_flag & os.ST_NOEXEC:
            return "/var/tmp"
    return "/tmp"


def _find(pack: str, scratch: str, options: argparse.Namespace) -> Setting:
    env = _simulated(options.sim, scratch) if options.sim else {}
    os.environ.pop("LD_PRELOAD", None)
    os.environ.update(env)
    cuda, nvml, more = setting.driver_files(os.environ)
    os.environ.update(more)
    device = _device()
    python = setting.python_with_torch(options.python, os.environ)
    env = {**env, **more, "CUDA_VISIBLE_DEVICES": device["uuid"]}
    out = str(options.out.resolve()) if options.out else ""
    if out:
        os.makedirs(out, exist_ok=True)
    return Setting(
        pack=pack,
        scratch=scratch,
        cuda=cuda,
        nvml=nvml,
        uuid=device["uuid"],
        python=python,
        simulated=bool(options.sim),
        env=env,
        device=device,
        broken=options.broken or "",
        out=out,
        brief=options.brief,
        prefixes=setting.prefixes(python, os.environ),
    )


def _device() -> dict[str, Any]:
    """In a process of its own, since this one's loader doesn't follow the environment any more."""
    code = "import json\nfrom tests.gpu import setting\ntry: print(json.dumps(setting.first_device()))\n"
    code += "except setting.NoGpuError as problem: print(json.dumps(str(problem)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd="/")
    if done.returncode:
        raise NoGpuError(f"NVML cannot be asked: {done.stderr.strip()[-300:]}")
    found = json.loads(done.stdout)
    if isinstance(found, str):
        raise NoGpuError(found)
    return dict(found)


def _simulated(board: str, scratch: str) -> dict[str, str]:
    from gpuportion import simgpu

    return simgpu.start(board, f"{scratch}/sim", cdi_dir=None).env()


def _run(where: Setting, options: argparse.Namespace) -> int:
    chosen = [part for part in PARTS if not options.only or part.name in options.only]
    began, patience = time.monotonic(), PATIENT if where.brief else 1
    _print_head(where)
    said: list[Said] = []
    took: dict[str, float] = {}
    for part in chosen:
        start = time.monotonic()
        print(f"\n{part.name}: {part.what}", flush=True)
        left = TOTAL * patience - (start - began)
        if left < part.seconds / 4:
            said.append(
                Said(part.name, "the part", f"no time is left: --only {part.name}", "", claims.SKIPPED)
            )
            print(f"  {said[-1].row()}")
            continue
        for each in _said_by(part, where, min(part.seconds * patience, left)):
            print(f"  {each.row()}", flush=True)
            for line in each.evidence:
                print(f"      | {line}", flush=True)
            said.append(each)
        took[part.name] = round(time.monotonic() - start, 1)
    totals = claims.count(said)
    if where.out:
        _write(where, said, took)
    print(f"\n{_sum(totals)} {sum(took.values()):.0f} s.")
    shown = totals[claims.OK] + totals[claims.FIGURE]
    return 1 if totals[claims.FALSE] or not shown else 0


def _sum(totals: Any) -> str:
    return (
        f"{totals[claims.OK]} claims hold, {totals[claims.FALSE]} are false, "
        f"{totals[claims.SKIPPED]} could not be tried, {totals[claims.FIGURE]} figures."
    )


def _print_head(where: Setting) -> None:
    device = where.device
    kind = "SIMULATED " if where.simulated else ""
    print(f"{kind}{device['name']}, driver {device['driver']}, CUDA {device['cuda']}, MIG {device['mig']}")
    print(f"libcuda {where.cuda}\nPython of the clients: {where.python}", flush=True)


def _said_by(part: Part, where: Setting, seconds: float) -> Iterator[Said]:
    """What the part says, and, if it did not come to its end, that."""
    search = os.environ["PYTHONPATH"]
    env = {**where.environment(), setting.VARIABLE: where.to_json(), "PYTHONPATH": search}
    errors = Path(where.scratch, f"{part.name}.stderr")
    with errors.open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.gpu.part", part.name],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            cwd=where.scratch,  # Python looks for modules in the current folder first
            start_new_session=True,
        )
    assert process.stdout
    heard = 0
    for line in _lines(process.stdout, time.monotonic() + seconds):
        with suppress(ValueError):
            yield claims.parse(line)
            heard += 1
    late = process.poll() is None and not _ends(process)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # also what it has left
    status = process.wait()
    if late or status or not heard:
        why = f"not ended within {seconds:.0f} s" if late else f"ended with status {status}"
        tail = errors.read_text(errors="replace").splitlines()[-25:]
        yield Said(part.name, "the part comes to its end", why, "", claims.FALSE, None, tail)


def _ends(process: subprocess.Popen[bytes]) -> bool:
    """Whether a part that has closed its output ends, too."""
    with suppress(subprocess.TimeoutExpired):
        process.wait(2)
        return True
    return False


def _lines(pipe: IO[bytes], deadline: float) -> Iterator[str]:
    """Lines until the end of the pipe or the deadline."""
    pending = b""
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while selector.select(max(0.0, deadline - time.monotonic())):
            read = os.read(pipe.fileno(), 65536)
            if not read:
                return
            *whole, pending = (pending + read).split(b"\n")
            yield from (line.decode(errors="replace") for line in whole)


def _write(where: Setting, said: Sequence[Said], took: dict[str, float]) -> None:
    manifest = json.loads(Path(where.pack, "manifest.json").read_text())
    told = {
        "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "simulated": where.simulated,
        "device": where.device,
        "libcuda": where.cuda,
        "python": where.python,
        "pack": manifest,
        "seconds": took,
        "totals": claims.count(said),
        "said": [asdict(each) for each in said],
    }
    where.keep("results.json", json.dumps(told, indent=1) + "\n")
