"""`gpuportion daemon`: the node daemon in the foreground, as systemd runs it; --sim simulates the GPUs."""

from __future__ import annotations

import argparse
import os
from typing import Final

from gpuportion import client
from gpuportion.cli.command import Plain
from gpuportion.errors import GpuportionError, RefusedError

SIM: Final = "GPUPORTION_SIM"
"""Stands for --sim where no command line can be given, such as in a unit file."""
STATE: Final = "GPUPORTION_SIM_STATE"
WAIT: Final = 5.0
USUAL: Final = "/run/gpuportion"


class Daemon(Plain):
    help = "run the daemon of this node in the foreground"
    usage = "[-h] [--sim BOARD[:N]] [options of gpuportiond]"
    takes_command = True
    epilog = (
        "With --sim (or GPUPORTION_SIM=a100-80gb:2) the GPUs are simulated: real CUDA clients run on them,\n"
        "and kernels compute nothing. Further options are those of gpuportiond; gpuportiond --help has them."
    )

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--sim", metavar="BOARD[:N]", help="simulate these GPUs")

    def run(self, args: argparse.Namespace) -> int:
        from gpuportion.allocator import daemon, daemon_options
        from gpuportion.simgpu import boards

        spec = args.sim or os.environ.get(SIM)
        if spec:
            boards.parse(spec, key="--sim" if args.sim else SIM)
            os.environ.update(simulation(spec, daemon_options.parser().parse_args(args.rest).run_dir))
        return daemon.main(args.rest)


def simulation(spec: str, run_dir: str) -> dict[str, str]:
    """Environment that makes the daemon see simulated GPUs; after a restart the same, with what is in use."""
    from gpuportion import simgpu
    from gpuportion.simgpu.simulation import DIRECTORY

    # The usual daemon has the usual simulation, which processes of this host find by themselves.
    usual = run_dir == USUAL
    os.makedirs(run_dir, mode=0o755, exist_ok=True)
    sim = simgpu.ensure(spec, DIRECTORY if usual else f"{run_dir}/sim", cdi_dir=f"{run_dir}/cdi")
    return {
        "GPUPORTION_NVML": f"{sim.lib}/libnvidia-ml.so.1",
        "GPUPORTION_DRIVER_PROC": sim.proc,
        STATE: sim.state,
        "GPUPORTION_CDI_DIRS": f"{run_dir}/cdi",
    }


def simulated(run_dir: str) -> dict[str, str]:
    """What a process of this host needs to find the GPUs that the daemon of `run_dir` simulates, if it does."""
    state = f"{run_dir}/sim/state"
    return {STATE: state} if os.path.exists(state) else {}


def is_answered() -> bool:
    """Whether a daemon is there and ready, on the socket that this process knows."""
    try:
        return bool(client.ask("ping", wait=WAIT).head["ready"])
    except (GpuportionError, RefusedError):
        return False


COMMAND: Final = Daemon()
