"""`gpuportion demo`: the main job, for real, in under two minutes, and nothing left behind.

Two containers share a GPU, one of them wants more than its portion, a third finds no room. Docker,
containerd, runc and NVIDIA's cuda-bindings are real; the GPU is, if there is one that may be used. What is
printed is what was run and what it said; what must be true of it is checked, and the demo fails if it is
not.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
from collections.abc import Sequence
from typing import Any, Final, NoReturn

from gpuportion import paths
from gpuportion.cli.command import Plain
from gpuportion.cli.daemon import is_answered
from gpuportion.cli.stage import Stage, claim, say, until
from gpuportion.errors import GpuportionError

SIMULATED: Final = "a100-80gb:1"
IMAGE: Final = "demo"
OTHERS: Final = 64 << 20
FIRST: Final = "2G"
SECOND: Final = "1G"
PROGRAM: Final = '''\
"""Allocates the megabytes that it is told to, with NVIDIA's own cuda-bindings, and stays."""
import signal, sys, time
from cuda.bindings import driver as cuda

cuda.cuInit(0)
_, context = cuda.cuDevicePrimaryCtxRetain(0)
cuda.cuCtxSetCurrent(context)
_, free, total = cuda.cuMemGetInfo()
print(f"this GPU has {total >> 20} MiB, {free >> 20} MiB of them free", flush=True)
for megabytes in map(int, sys.argv[1:]):
    error, _ = cuda.cuMemAlloc(megabytes * 10**6)
    print(f"cuMemAlloc of {megabytes} MB: {error.name}", flush=True)
    time.sleep(0.2)
print("alive", flush=True)
signal.pause()
'''
GRANTED: Final = "cuMemAlloc of {} MB: CUDA_SUCCESS"
REFUSED: Final = "cuMemAlloc of {} MB: CUDA_ERROR_OUT_OF_MEMORY"


class Demo(Plain):
    help = "show two containers sharing a GPU, on a docker of its own; leave nothing behind"

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--sim", metavar="BOARD[:N]", default="", help="simulate these GPUs, whatever is there"
        )

    def run(self, args: argparse.Namespace) -> int:
        if os.geteuid() != 0:
            _become_root()
        signal.signal(signal.SIGTERM, _interrupt)
        sim = args.sim or choose_gpu()
        print("Starting a daemon, a dockerd and an image for this demo alone.", flush=True)
        with Stage(sim) as played_on:
            played_on.make_image(IMAGE, {"/demo.py": PROGRAM})
            play(played_on)
        print("\nDaemons ended, folders removed: nothing of this stays on the machine.")
        return 0


def choose_gpu() -> str:
    """ "" for the real GPU; a board to simulate if there is none, or if it's another daemon's to give out."""
    why = why_not_real()
    if not why:
        return ""
    print(f"The GPU is simulated: {why}.", flush=True)
    return SIMULATED


def why_not_real() -> str:
    from gpuportion.allocator.cdi_files import CdiFiles
    from gpuportion.allocator.inventory import Nvml

    trouble = Nvml().sample().trouble
    if trouble:
        return trouble
    if is_answered():
        return f"the daemon on {paths.socket_path()} gives out the GPUs of this machine"
    try:
        CdiFiles().specs()
    except GpuportionError as refusal:
        return str(refusal)
    return ""


def play(on: Stage) -> None:
    """The scenes, in order."""
    before = on.gpus()
    one_alone(on)
    one_more(on)
    who_has_what(on)
    no_room(on)
    all_is_freed(on, before)


def one_alone(on: Stage) -> None:
    say(f"A container with {FIRST} of the GPU, and what a CUDA program in it sees:")
    on.shell("docker", "run", "-d", "--name=ann", *asking(FIRST), IMAGE, "python3", "/demo.py", "800")
    told(on, "ann", GRANTED.format(800))


def one_more(on: Stage) -> None:
    say(f"Another one with {SECOND}, by the other way to say it. It wants more than its portion:")
    words = ("gpuportion", "run", f"--gpu-memory={SECOND}", "-d", "--name=bob", "--network=none", IMAGE)
    on.shell(*words, "python3", "/demo.py", "500", "500", "100")
    told(on, "bob", GRANTED.format(500), REFUSED.format(500), "GP201", GRANTED.format(100))


def told(on: Stage, name: str, *lines: str) -> None:
    """Show what a container's program said once it is through; each of `lines` must be in it."""
    until(lambda: "alive" in on.logs(name), f"{name} is through")
    said = on.shell("docker", "logs", name)
    for line in lines:
        claim(line in said, f"{name} says: {line}")


def who_has_what(on: Stage) -> None:
    say("CUDA's own error told it so, and it lived on. Who has what, on which GPU:")
    on.shell("gpuportion", "ps")
    on.shell("gpuportion", "node")
    claim(len(on.grants()) == 2 and len(shared(on)) == 1, "two containers hold portions of one GPU")


def shared(on: Stage) -> set[int]:
    """Indexes of the GPUs of which somebody holds a portion."""
    return {gpu["index"] for grant in on.grants() for gpu in grant["gpus"]}


def no_room(on: Stage) -> None:
    say("A third one asks for more than is left. It is refused before it starts, in docker's own words:")
    (index,) = shared(on)
    gpus = on.gpus()
    choice = ["-e", f"GPU_SELECT={index}"] if len(gpus) > 1 else []
    amount = too_much(next(gpu for gpu in gpus if gpu["index"] == index))
    said = on.shell("docker", "run", "--name=eve", *asking(amount), *choice, IMAGE, "true", fails=True)
    claim("GP101" in said and len(on.grants()) == 2, "the third container is refused with GP101")


def too_much(gpu: dict[str, Any]) -> str:
    """More than the GPU has free, less than it has: to ask for more than there is, is another mistake."""
    return f"{(gpu['free'] + gpu['total']) // 2 // 10**9}G"


def all_is_freed(on: Stage, before: Sequence[dict[str, Any]]) -> None:
    say("The containers end, and their grants with them:")
    on.shell("docker", "rm", "-f", "ann", "bob")
    until(lambda: not on.grants(), "the grants end with their containers")
    on.shell("gpuportion", "ps")
    until(lambda: is_as(before, on.gpus()), "all that was granted and used is free again")
    on.shell("gpuportion", "node")


def is_as(before: Sequence[dict[str, Any]], now: Sequence[dict[str, Any]]) -> bool:
    """But for what others do meanwhile on a real GPU, which is not all ours."""
    return all(
        new["granted"] == old["granted"] and new["used"] <= old["used"] + OTHERS
        for old, new in zip(before, now, strict=True)
    )


def asking(amount: str) -> list[str]:
    return ["--network=none", "--runtime=gpuportion", "-e", f"GPU_MEMORY_LIMIT={amount}"]


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def _become_root() -> NoReturn:
    sudo = shutil.which("sudo")
    if sudo is None:
        raise GpuportionError(
            "GP306", what="the demo", why="only root can start its dockerd. Run it as root."
        )
    print("Only root can start the dockerd of this demo: going on by sudo.", flush=True)
    os.execv(sudo, [sudo, sys.executable, "-m", "gpuportion", *sys.argv[1:]])


COMMAND: Final = Demo()
