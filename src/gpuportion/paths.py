"""Where things lie on a host and in a container. Plain strings: `pathlib` costs the CLI's start-up 10 ms."""

from __future__ import annotations

import os
from typing import Final

# In the container. A top-level folder: /usr may be a read-only volume and /run a tmpfs.
INSIDE: Final = "/.gpuportion"
INSIDE_CUDA: Final = f"{INSIDE}/libcuda.so.1"
INSIDE_ALIAS: Final = f"{INSIDE}/libcuda.so"  # the same library by its other name
INSIDE_NVML: Final = f"{INSIDE}/libnvidia-ml.so.1"
INSIDE_POLICY: Final = f"{INSIDE}/policy"
INSIDE_LEDGER: Final = f"{INSIDE}/ledger"
INSIDE_DRIVER: Final = f"{INSIDE}/driver"  # the real libcuda.so.1 and libnvidia-ml.so.1, moved aside
INSIDE_LIB: Final = f"{INSIDE}/lib"  # what of the driver has no place of its own in a read-only volume
INSIDE_PRELOAD: Final = "/etc/ld.so.preload"


def run_dir() -> str:
    """State that dies with the boot: socket, store, pages. `GPUPORTION_RUN_DIR` moves it (tests, demo)."""
    return os.environ.get("GPUPORTION_RUN_DIR") or "/run/gpuportion"


def state_dir() -> str:
    """State that outlives a boot. `GPUPORTION_STATE_DIR` moves it (tests, demo)."""
    return os.environ.get("GPUPORTION_STATE_DIR") or "/var/lib/gpuportion"


def socket_path() -> str:
    return f"{run_dir()}/gpuportiond.sock"


def package_file(relative: str) -> str:
    """Absolute path of a built file of this installation, such as `bin/gpuportion-runtime`.

    Raises FileNotFoundError: the package was not built.
    """
    from importlib.resources import files

    found = str(files("gpuportion").joinpath(relative))
    if not os.path.exists(found):
        raise FileNotFoundError(f"{found}: build gpuportion first (make build)")
    return os.path.realpath(found)
