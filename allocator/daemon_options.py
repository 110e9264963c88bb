"""The daemon's command line: an amount or a time that makes no sense ends it before it has begun."""

from __future__ import annotations

import argparse

from gpuportion import paths
from gpuportion.allocator import cdi_files, policy_file
from gpuportion.allocator.devices import MARGIN
from gpuportion.allocator.mig.host import PATIENCE
from gpuportion.sizes import MIB, BadSizeError, parse


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="gpuportiond", description="Assigns portions of this node's GPUs.")
    made.add_argument(
        "--run-dir", default=paths.run_dir(), help="socket, store and pages (default: %(default)s)"
    )
    made.add_argument(
        "--state-dir",
        default=paths.state_dir(),
        help="what is kept over reboots (default: %(default)s)",
    )
    made.add_argument(
        "--cdi-dir",
        action="append",
        help="folder of CDI specs; may be given again, the last goes before the others "
        f"(default: {' '.join(cdi_files.folders())})",
    )
    made.add_argument(
        "--socket-group",
        default="gpuportion",
        help="group whose members may use the socket (default: %(default)s)",
    )
    made.add_argument(
        "--reservation-timeout",
        type=_seconds,
        default=60.0,
        metavar="SECONDS",
        help="how long a container may take from its create to its start (default: 60)",
    )
    made.add_argument(
        "--margin",
        type=_amount,
        metavar="AMOUNT",
        help=f"memory of each GPU that is never granted (default: as configured, else {MARGIN // MIB}Mi)",
    )
    made.add_argument(
        "--config",
        default="",
        metavar="FILE",
        help=f"the administrator's rules; read again at SIGHUP (default: {policy_file.PATH}, where it is there)",
    )
    made.add_argument(
        "--mig-timeout",
        type=_seconds,
        default=PATIENCE,
        metavar="SECONDS",
        help="how long the driver may take to make a MIG instance (default: 30; a container's start waits 40)",
    )
    made.add_argument(
        "--foreground", action="store_true", help="for symmetry with other daemons: it never forks"
    )
    return made


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds") from None
    if not 0 < value <= 3600:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 3600 seconds")
    return value


def _amount(text: str) -> int:
    try:
        return 0 if text == "0" else parse(text)
    except BadSizeError as problem:
        raise argparse.ArgumentTypeError(str(problem)) from None
