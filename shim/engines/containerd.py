"""containerd's configuration, for its CRI plugin: our runtime in a drop-in, and the line that reads drop-ins.

    /etc/containerd/config.toml                    imports = [".../conf.d/99-*gpuportion.toml"]
    /etc/containerd/conf.d/99-gpuportion.toml      the runtime, in the plugin's section

containerd before 2.1 takes a plugin's section whole from the last file that has it. There our drop-in begins
with a copy of the section as the other files say it, and comes after them: where another drop-in would be
read later, ours is called 99-zz-gpuportion.toml. `ctr run --runc-binary` needs none of this.
"""

from __future__ import annotations

import fnmatch
import glob
import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from typing import Any, Final

from gpuportion.errors import GpuportionError
from gpuportion.shim.engines import installation, toml_text
from gpuportion.shim.engines.installation import HEAD, RUNTIME, Edit, Record

CONFIG: Final = "/etc/containerd/config.toml"
FOLDER: Final = "conf.d"
NAMES: Final = ("99-gpuportion.toml", "99-zz-gpuportion.toml")
PATTERN: Final = "99-*gpuportion.toml"
"""A pattern, for containerd won't start without a file that is named outright; ours alone, to be taken out again."""
PLUGINS: Final = {2: "io.containerd.grpc.v1.cri", 3: "io.containerd.cri.v1.runtime"}
"""Version of a configuration -> the plugin that has the runtimes."""
SHIM: Final = "io.containerd.runc.v2"
ANNOTATIONS: Final = "gpuportion.io/*"
MERGES: Final = (2, 1)
"""The first containerd that merges the sections of several files."""
PLACES: Final = "/usr/local/sbin:/usr/sbin:/sbin"
"""Where containerd is looked for besides PATH."""
EMPTY: Final = "version = 2\n"
COPY: Final = """\
# This containerd takes the section from the last file that has it: what {main} and its imports
# said is copied here. After editing them there: gpuportion install --engine containerd
"""


def section(parsed: toml_text.Table, version: int) -> dict[str, Any]:
    """What a file says of the plugin with the runtimes."""
    return toml_text.inner(parsed, "plugins", PLUGINS[version])


def version_of(text: str | None, source: str) -> int:
    """2 or 3. GpuportionError GP307 where no pod could run by what we would write."""
    parsed = toml_text.parse(text, source)
    version = parsed.get("version", 1 if "plugins" in parsed else 2)
    disabled = {"cri", *PLUGINS.values()} & set(parsed.get("disabled_plugins", ()))
    if disabled:
        why = (
            f'"{min(disabled)}" is disabled, so nothing would read a runtime. Take it out of disabled_plugins '
            "for Kubernetes; docker, and ctr run --runc-binary, need no installation into containerd."
        )
        raise GpuportionError("GP307", source=source, where="disabled_plugins", why=why)
    if version not in PLUGINS:
        why = (
            f"this is a configuration of version {version}; gpuportion knows 2 and 3. Move it to version 2 "
            "first (containerd config migrate, where containerd has that)."
        )
        raise GpuportionError("GP307", source=source, where="version", why=why)
    return int(version)


def drop_in(
    said: toml_text.Table,
    version: int,
    runtime_path: str,
    *,
    set_default: bool,
    whole: bool,
    main: str = CONFIG,
) -> str:
    """The drop-in's text. `said`: the section as the other files have it; `whole`: copy it."""
    containerd = toml_text.inner(said, "containerd")
    runtimes = {
        key: value for key, value in toml_text.inner(containerd, "runtimes").items() if key != RUNTIME
    }
    entry = _like(_stock(containerd, runtimes), runtime_path)
    default = {"default_runtime_name": RUNTIME} if set_default else {}
    if whole:
        # Without a word on runtimes containerd has runc; with one, it has only what is said.
        others = runtimes or {"runc": {"runtime_type": SHIM}}
        new = {**said, "containerd": {**containerd, **default, "runtimes": {**others, RUNTIME: entry}}}
    else:
        new = {"containerd": {**default, "runtimes": {RUNTIME: entry}}}
    head = HEAD + (COPY.format(main=main) if whole and said else "")
    tables = toml_text.write({"plugins": {PLUGINS[version]: new}})
    return f"{head}version = {version}\n\n{tables}"


def _stock(containerd: toml_text.Table, runtimes: toml_text.Table) -> dict[str, Any]:
    """The runtime whose options ours takes over: the default one, if it is runc's kind, else runc."""
    for name in (containerd.get("default_runtime_name"), "runc"):
        entry = toml_text.inner(runtimes, str(name))
        if entry.get("runtime_type") == SHIM:
            return entry
    return {}


def _like(stock: toml_text.Table, runtime_path: str) -> dict[str, Any]:
    annotations = [*stock.get("pod_annotations", []), ANNOTATIONS]
    options = {**toml_text.inner(stock, "options"), "BinaryName": runtime_path}
    return {
        **stock,
        "runtime_type": SHIM,
        "pod_annotations": list(dict.fromkeys(annotations)),
        "options": options,
    }


def edits(config: str, runtime_path: str, set_default: bool) -> list[Edit]:
    """The drop-in first: config.toml names it only when it is there."""
    folder = f"{os.path.dirname(os.path.abspath(config))}/{FOLDER}"
    pattern = f"{folder}/{PATTERN}"

    def text_of(name: str) -> str | None:
        main = installation.read(config)
        version = version_of(main, config)
        files = _files(main, config, pattern, [f"{folder}/{other}" for other in NAMES])
        if name != _name(files, version):
            return None
        said = _said(files.values(), version)
        whole = _needs_whole(_running_version())
        return drop_in(said, version, runtime_path, set_default=set_default, whole=whole, main=config)

    own = [
        installation.of_our_own(f"{folder}/{name}", lambda name=name: text_of(name))  # type: ignore[misc]
        for name in NAMES
    ]
    return [*own, imports(config, pattern)]


def imports(config: str, pattern: str) -> Edit:
    """The edit of config.toml: one pattern among its imports."""

    def put(given: str | None) -> str:
        text = given or ""
        version_of(text, config)
        parsed = toml_text.parse(text, config)
        if pattern in parsed.get("imports", ()):
            return text
        return toml_text.append(text if "version" in parsed else EMPTY + text, "imports", pattern, config)

    def take(text: str | None, record: Record | None) -> str | None:
        if record is not None and text == record.after:
            return record.before
        return text if text is None else toml_text.remove(text, "imports", pattern, config)

    return Edit(config, put, take)


def default(config: str) -> tuple[str, str]:
    """Name and program of the runtime that pods have which name none; "": containerd's own. GP307 as `version_of`."""
    main = installation.read(config)
    version = version_of(main, config)
    name, runtimes = "", dict[str, Any]()
    for path in _files(main, config, config, []):
        said = section(toml_text.parse(installation.read(path), path), version)
        name = str(toml_text.inner(said, "containerd").get("default_runtime_name") or name)
        runtimes |= toml_text.inner(said, "containerd", "runtimes")
    return name, str(toml_text.inner(runtimes, name, "options").get("BinaryName") or "")


def _files(main: str | None, config: str, pattern: str, ours: list[str]) -> dict[str, dict[str, Any]]:
    """Path -> tables of the files that containerd reads, in its order; ours are there, and empty."""
    parsed = toml_text.parse(main, config)
    files = {config: parsed}
    for wanted in dict.fromkeys([*parsed.get("imports", ()), pattern]):
        whole = os.path.join(os.path.dirname(config), wanted)
        found = {*glob.glob(whole), *fnmatch.filter(ours, whole)}
        for path in sorted(found - files.keys()):
            files[path] = {} if path in ours else toml_text.parse(installation.read(path), path)
    return files


def _name(files: dict[str, dict[str, Any]], version: int) -> str:
    """The first of our names after which no other file has the section."""
    order = list(files)
    telling = [order.index(path) for path, parsed in files.items() if section(parsed, version)]
    places = {os.path.basename(path): place for place, path in enumerate(order)}
    late = [name for name in NAMES if places[name] > max(telling, default=-1)]
    if not late:
        last = order[max(telling)]
        why = f"containerd reads it after {NAMES[-1]}, and before 2.1 nothing else counts then. Rename it."
        raise GpuportionError("GP307", source=last, where=f"plugins.{PLUGINS[version]}", why=why)
    return late[0]


def _said(files: Iterable[toml_text.Table], version: int) -> dict[str, Any]:
    """The section as containerd before 2.1 has it: the last file's, whole."""
    said = [section(parsed, version) for parsed in files]
    return next((table for table in reversed(said) if table), {})


def _needs_whole(version: tuple[int, ...] | None) -> bool:
    return version is None or version < MERGES


def _running_version() -> tuple[int, ...] | None:
    """Of the containerd that is installed; None: it can't be asked. A copy of the section is right for all."""
    program = shutil.which("containerd", path=f"{os.environ.get('PATH', '')}:{PLACES}")
    if program is None:
        return None
    try:
        said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.search(r" v?(\d+)\.(\d+)\.\d+", said.stdout)
    return tuple(map(int, found.groups())) if found else None
