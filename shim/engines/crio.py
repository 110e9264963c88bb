"""CRI-O's configuration: our runtime in a drop-in.

CRI-O merges its files by a runtime's name, a later table of one name instead of the earlier one, and hands a
pod's annotations on to the containers, so the runtime's own table is all it takes. What the default runtime is
monitored with is taken over.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable
from typing import Any, Final

from gpuportion.shim.engines import installation, toml_text
from gpuportion.shim.engines.installation import HEAD, RUNTIME, Edit

CONFIG: Final = "/etc/crio/crio.conf.d/99-gpuportion.conf"
STOCK: Final = ("crun", "runc")
"""CRI-O's default runtime now, and before 1.31."""
MIRRORED: Final = (
    "runtime_root",
    "allowed_annotations",
    "monitor_path",
    "monitor_cgroup",
    "monitor_env",
    "monitor_exec_cgroup",
    "container_min_memory",
    "no_sync_log",
    "privileged_without_host_devices",
    "seccomp_profile",
    "container_create_timeout",
    "exec_cpu_affinity",
    "default_annotations",
)
"""Of a runtime's table, what isn't about its program (cri-o, pkg/config/config.go, RuntimeHandler)."""


def drop_in(said: Iterable[toml_text.Table], runtime_path: str, *, set_default: bool) -> str:
    """The drop-in's text. `said`: what the other files say, in CRI-O's order."""
    default, runtimes = _merged(said)
    stock = next((runtimes[name] for name in (default, *STOCK) if name in runtimes), {})
    entry = {"runtime_path": runtime_path, "runtime_type": "oci"}
    entry |= {key: stock[key] for key in MIRRORED if key in stock}
    chosen = {"default_runtime": RUNTIME} if set_default else {}
    return HEAD + toml_text.write({"crio": {"runtime": {**chosen, "runtimes": {RUNTIME: entry}}}})


def _merged(said: Iterable[toml_text.Table]) -> tuple[str, dict[str, dict[str, Any]]]:
    """The default runtime ("": not said) and every runtime's table, as CRI-O has them in the end."""
    default, runtimes = "", dict[str, dict[str, Any]]()
    for parsed in said:
        runtime = toml_text.inner(parsed, "crio", "runtime")
        default = str(runtime.get("default_runtime", default))
        for name in toml_text.inner(runtime, "runtimes"):
            runtimes[name] = toml_text.inner(runtime, "runtimes", name)
    return default, runtimes


def default(config: str) -> tuple[str, str]:
    """Name and program of the runtime that pods have which name none; "": CRI-O's own."""
    files = [*_others(config), os.path.abspath(config)]
    name, runtimes = _merged(toml_text.parse(installation.read(path), path) for path in files)
    return name, str(runtimes.get(name, {}).get("runtime_path") or "")


def edits(config: str, runtime_path: str, set_default: bool) -> list[Edit]:
    def text() -> str:
        said = [toml_text.parse(installation.read(path), path) for path in _others(config)]
        return drop_in(said, runtime_path, set_default=set_default)

    return [installation.of_our_own(config, text)]


def _others(config: str) -> list[str]:
    """crio.conf and its drop-ins but ours."""
    folder = os.path.dirname(os.path.abspath(config))
    found = [path for path in sorted(glob.glob(f"{folder}/*")) if os.path.isfile(path)]
    others = [path for path in found if path != os.path.abspath(config)]
    return [f"{os.path.dirname(folder)}/crio.conf", *others]
