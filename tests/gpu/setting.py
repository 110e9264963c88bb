"""Where the suite runs: the driver's files, the GPU, the interpreter that has PyTorch, and the folder that `pack` made.

Found once, by the process that runs the parts, and handed to each of them as JSON in a variable. Starts nothing on the
GPU, and changes nothing.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

VARIABLE: Final = "GPUPORTION_GPU_SUITE"
CUDA: Final = "libcuda.so.1"
NVML: Final = "libnvidia-ml.so.1"
FOLDERS: Final = ("/usr/local/nvidia/lib64", "/usr/local/nvidia/lib", "/usr/lib/x86_64-linux-gnu", "/usr/lib64",
                  "/usr/lib/aarch64-linux-gnu", "/run/opengl-driver/lib", "/usr/lib/wsl/lib")  # fmt: skip
"""Where a driver lies that the loader does not know of."""

LOADED: Final = (
    "import ctypes, sys\nfor name in sys.argv[1:]: ctypes.CDLL(name)\nprint(open('/proc/self/maps').read())"
)


class NoGpuError(Exception):
    """There is nothing to run on; the text is a sentence."""


@dataclass(frozen=True)
class Setting:
    """`env`: what a client needs besides the process's own environment. `scratch` is removed at the end.
    `broken`: what the suite leaves out on purpose, to be seen failing. `out`: a folder for results,
    or "". `brief`: the smallest grant alone, and few repetitions.
    `prefixes`: folders that the clients' Python lives in."""

    pack: str
    scratch: str
    cuda: str
    nvml: str
    uuid: str
    python: str
    simulated: bool
    env: dict[str, str]
    device: dict[str, Any]
    broken: str = ""
    out: str = ""
    brief: bool = False
    prefixes: tuple[str, ...] = ()

    def environment(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """Of a client without our library."""
        own = {key: value for key, value in os.environ.items() if key not in ("LD_PRELOAD", "PYTHONPATH")}
        search = [each for each in os.environ.get("PYTHONPATH", "").split(":") if each and each != self.site]
        if search:
            own["PYTHONPATH"] = ":".join(search)
        return {**own, **self.env, **(more or {})}

    @property
    def site(self) -> str:
        """What this suite's own processes import from, and clients don't: they have versions of their own."""
        return f"{self.pack}/site"

    def program(self, name: str) -> str:
        """One of the pack's own C programs or libraries."""
        return f"{self.pack}/bin/{name}"

    def library(self, name: str) -> str:
        """One of gpuportion's built libraries."""
        return f"{self.pack}/site/gpuportion/lib/{name}"

    def keep(self, name: str, text: str) -> None:
        """A file of the results, where there is a folder for them."""
        if self.out:
            Path(self.out, name).write_text(text)

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))


def handed() -> Setting:
    """The setting of the process that started this one."""
    return Setting(**json.loads(os.environ[VARIABLE]))


def driver_files(env: Mapping[str, str]) -> tuple[str, str, dict[str, str]]:
    """Real paths of libcuda and NVML as a client of this environment loads them, and what the environment needs for
    that. NoGpuError: there are none."""
    tried = []
    for more in ({}, *({"LD_LIBRARY_PATH": folder} for folder in FOLDERS)):
        done = subprocess.run(
            [sys.executable, "-c", LOADED, CUDA, NVML],
            env={**env, **more},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode == 0:
            return _mapped(done.stdout, "libcuda"), _mapped(done.stdout, "libnvidia-ml"), more
        tried.append(done.stderr.strip().splitlines()[-1] if done.stderr else f"status {done.returncode}")
    raise NoGpuError(
        f"No NVIDIA driver can be loaded here: {tried[0]}. Looked in {' '.join(FOLDERS)} as well."
    )


def _mapped(maps: str, name: str) -> str:
    found = re.search(rf" (/\S*/{re.escape(name)}\.so\S*)$", maps, re.MULTILINE)
    if not found:
        raise NoGpuError(f"{name} was loaded, but /proc/self/maps does not show from where.")
    return os.path.realpath(found[1])


def first_device() -> dict[str, Any]:
    """What NVML says of the first GPU, read in this process. NoGpuError: nothing."""
    import pynvml

    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    except pynvml.NVMLError as problem:
        raise NoGpuError(f"NVML answers: {problem}. There is no GPU to run on.") from None
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    return {
        "name": _text(pynvml.nvmlDeviceGetName(handle)),
        "uuid": _text(pynvml.nvmlDeviceGetUUID(handle)),
        "driver": _text(pynvml.nvmlSystemGetDriverVersion()),
        "cuda": pynvml.nvmlSystemGetCudaDriverVersion(),
        "total": memory.total,
        "used": memory.used,
        "mig": _mig_mode(handle),
        "minor": pynvml.nvmlDeviceGetMinorNumber(handle),
        "gpus": pynvml.nvmlDeviceGetCount(),
        "kernel": os.uname().release,
        "machine": os.uname().machine,
        "libc": os.confstr("CS_GNU_LIBC_VERSION") or "",
        "python": sys.version.split()[0],
    }


def _mig_mode(handle: Any) -> str:
    import pynvml

    try:
        return "on" if pynvml.nvmlDeviceGetMigMode(handle)[0] else "off"
    except pynvml.NVMLError:
        return "none"


def _text(answer: str | bytes) -> str:
    return answer.decode() if isinstance(answer, bytes) else answer


def python_with_torch(given: str, env: Mapping[str, str]) -> str:
    """The interpreter that clients run in: the one given; else of the usual names the first that can import torch;
    else this one."""
    if given:
        return os.path.abspath(given)
    for name in (sys.executable, "python3", "python"):
        path = shutil.which(name)
        if path and _has(path, "torch", env):
            return path
    return sys.executable


def prefixes(python: str, env: Mapping[str, str]) -> tuple[str, ...]:
    """Folders that an interpreter needs."""
    code = "import sys; print(sys.prefix); print(sys.base_prefix)"
    done = subprocess.run([python, "-c", code], env=env, capture_output=True, text=True, check=False)
    return tuple(dict.fromkeys([*done.stdout.split(), os.path.dirname(os.path.dirname(python))]))


def _has(python: str, module: str, env: Mapping[str, str]) -> bool:
    find = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({module!r}) is None)"
    return subprocess.run([python, "-c", find], env=env, capture_output=True, check=False).returncode == 0


def has(setting: Setting, module: str) -> bool:
    """Whether the clients' interpreter has a module."""
    return _has(setting.python, module, setting.environment())


def source(pack: str, *parts: str) -> str:
    """A file of the suite or of gpuportion, in the pack."""
    return str(Path(pack, "site", *parts))
