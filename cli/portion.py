"""The options of `run` and `exec` that say which portion of a GPU is wanted: a request's environment keys.

Which keys there are, and what a value must look like, is `shim.request`'s to say; here is only how the
options are explained.
"""

from __future__ import annotations

import argparse
from typing import Final

from gpuportion.shim import request

# Field of a request -> (placeholder, explanation as argparse takes it); no placeholder: an option without a value.
HELP: Final = {
    "memory": ("AMOUNT", "memory on each GPU: 4G is 10^9, 4Gi is 2^30 bytes; 4G,8G for each GPU in order"),
    "fraction": ("PART", "a part of a GPU's memory, above 0 and up to 1, instead of an amount"),
    "compute": ("PERCENT", "per cent of a GPU's compute, 1 to 100"),
    "mig": ("PROFILE", "a MIG instance of this profile, such as 2g.10gb"),
    "count": ("N", "number of GPUs, 1 where it is not given"),
    "select": ("GPUS", "which GPUs may serve: indexes, UUIDs or model globs, such as 0,1 or '*A100*'"),
    "role": ("ROLE", "only this way of serving: fraction or mig"),
    "mig_grow": ("", "a larger MIG profile than the smallest fitting one may be taken"),
}
GROW: Final = "allow"
"""What --mig-grow means as a value of its key."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """One option for each key of a request."""
    for key in request.KEYS:
        placeholder, explanation = HELP[key.field]
        if placeholder:
            parser.add_argument(key.flag, dest=key.env, metavar=placeholder, help=explanation)
        else:
            parser.add_argument(key.flag, dest=key.env, action="store_const", const=GROW, help=explanation)


def asked(args: argparse.Namespace) -> dict[str, str]:
    """The keys that were given, checked; GpuportionError GP102, 106 or 107 if they are no request.

    Checked here so that a mistake is said at once, before an engine is started; the daemon checks again.
    """
    keys = {key.env: getattr(args, key.env) for key in request.KEYS if getattr(args, key.env) is not None}
    if not keys:
        args.parser.error("say which portion of a GPU is wanted, for example --gpu-memory 4G")
    request.from_keys(keys)
    return keys
