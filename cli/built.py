"""The files of this installation that were compiled, and the sentence for when they were not."""

from __future__ import annotations

from typing import Final

from gpuportion import paths
from gpuportion.errors import GpuportionError

RUNTIME: Final = "bin/gpuportion-runtime"
FILES: Final = (
    RUNTIME,
    "bin/gpuportion-hook",
    "lib/libcap_mem.so",
    "lib/libcap_nvml.so",
    "lib/libcap_alias.so",
)


def path(relative: str) -> str:
    """Absolute path of one of FILES. GpuportionError GP305 if it is not there."""
    try:
        return paths.package_file(relative)
    except FileNotFoundError:
        why = "this installation was not built: make build, or install the wheel"
        raise GpuportionError("GP305", what=relative, why=why) from None
