"""podman's configuration: our runtime in a drop-in of containers.conf.

podman reads containers.conf, then its drop-ins by name; a later list replaces an earlier one. So
`runtime_supports_json` repeats what stood there before us: without our name in it podman would not ask for
refusals in JSON, and with nothing but our name in it runc and crun would lose theirs. (podman from 5.0 on knows
`{append=true}`; 4 refuses to start of it.)
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Mapping
from typing import Any, Final

from gpuportion.shim.engines import installation, toml_text
from gpuportion.shim.engines.installation import HEAD, RUNTIME, Edit

CONFIG: Final = "/etc/containers/containers.conf.d/gpuportion.conf"
SHIPPED: Final = "/usr/share/containers/containers.conf"
STOCK: Final = ("crun", "runc", "kata", "runsc", "youki", "krun")
"""podman's own `runtime_supports_json`, where no file says one (containers/common, pkg/config/default.go)."""
JSON: Final = "runtime_supports_json"


def drop_in(said: Iterable[toml_text.Table], runtime_path: str, *, set_default: bool) -> str:
    """The drop-in's text. `said`: what is read before it, in podman's order."""
    speaking: list[Any] = list(STOCK)
    for parsed in said:
        speaking = _merged(speaking, toml_text.inner(parsed, "engine").get(JSON))
    default = {"runtime": RUNTIME} if set_default else {}
    engine = {
        **default,
        JSON: list(dict.fromkeys([*speaking, RUNTIME])),
        "runtimes": {RUNTIME: [runtime_path]},
    }
    return HEAD + toml_text.write({"engine": engine})


def _merged(before: list[Any], said: Any) -> list[Any]:
    """A list as podman reads it after another: instead of it, or behind it with `{append=true}`."""
    if not isinstance(said, list):
        return before
    names = [value for value in said if isinstance(value, str)]
    appends = any(isinstance(value, Mapping) and value.get("append") is True for value in said)
    return [*before, *names] if appends else names


def edits(config: str, runtime_path: str, set_default: bool) -> list[Edit]:
    def text() -> str:
        said = [toml_text.parse(installation.read(path), path) for path in _before(config)]
        return drop_in(said, runtime_path, set_default=set_default)

    return [installation.of_our_own(config, text)]


def default(config: str) -> tuple[str, str]:
    """Name and first program of the runtime that containers have which name none; "": podman's own."""
    name, programs = "", dict[str, Any]()
    for path in [*_before(config), config]:
        engine = toml_text.inner(toml_text.parse(installation.read(path), path), "engine")
        name = str(engine.get("runtime") or name)
        programs |= toml_text.inner(engine, "runtimes")
    found = programs.get(name)
    return name, str(found[0]) if isinstance(found, list) and found else ""


def _before(config: str) -> list[str]:
    """The files that podman reads before the drop-in `config`."""
    folder = os.path.dirname(os.path.abspath(config))
    earlier = [path for path in sorted(glob.glob(f"{folder}/*.conf")) if path < os.path.abspath(config)]
    return [SHIPPED, f"{os.path.dirname(folder)}/containers.conf", *earlier]
