"""docker's daemon.json: our runtime in it, and out again.

`install` and `uninstall` are pure: text in, text out. The shell below reads, writes, remembers and tells the
running dockerd, which reads `runtimes` and `default-runtime` anew at SIGHUP.

`runtimeArgs` is never written: docker makes an unquoted shell script of it.
"""

from __future__ import annotations

import json
from typing import Any, Final

from gpuportion.errors import GpuportionError
from gpuportion.shim.engines import dockerd, installation, json_text
from gpuportion.shim.engines.installation import RUNTIME, Change, Edit, Record

ENGINE: Final = "docker"
RUNTIMES: Final = "runtimes"
DEFAULT: Final = "default-runtime"
CONFIG: Final = "/etc/docker/daemon.json"
PIDFILE: Final = "/var/run/docker.pid"
NOTHING: Final = "{}\n"
STOCK: Final = "runc"
"""dockerd's default runtime if nothing else is said."""
UNTOLD: Final = f"docker knows the runtime {RUNTIME} until it is restarted: systemctl restart docker"
SHAPES: Final[dict[str, tuple[type, str]]] = {RUNTIMES: (dict, "an object"), DEFAULT: (str, "a text")}


def install(text: str | None, runtime_path: str, *, set_default: bool = False, source: str = CONFIG) -> str:
    """The text with our runtime in it. GpuportionError GP307 if it is no daemon.json as dockerd takes it."""
    new = NOTHING if text is None or not text.strip() else text
    parsed = _checked(new, source)
    entry = {"path": runtime_path}
    if parsed.get(RUNTIMES, {}).get(RUNTIME) != entry:
        new = json_text.put(new, (RUNTIMES, RUNTIME), entry)
    if set_default and parsed.get(DEFAULT) != RUNTIME:
        new = json_text.put(new, (DEFAULT,), RUNTIME)
    return new


def uninstall(text: str | None, record: Record | None, *, source: str = CONFIG) -> str | None:
    """The text as it was before us; None: there was no file. Where somebody edited in between, or nothing is
    recorded, exactly our keys go. GpuportionError GP307 as `install`."""
    if record is not None and text == record.after:
        return record.before
    if text is None or not text.strip():
        return text
    parsed = _checked(text, source)
    new = json_text.cut(text, (RUNTIMES, RUNTIME))
    if parsed.get(RUNTIMES, {}).keys() == {RUNTIME} and (record is None or _had(record, RUNTIMES) is None):
        new = json_text.cut(new, (RUNTIMES,))
    if parsed.get(DEFAULT) == RUNTIME:
        was = _had(record, DEFAULT)
        new = json_text.cut(new, (DEFAULT,)) if was is None else json_text.put(new, (DEFAULT,), was)
    made_by_us = record is not None and record.before is None
    return None if made_by_us and not _members(new) else new


def _checked(text: str, source: str) -> dict[str, Any]:
    parsed = json_text.check(text, source)
    for key, (kind, name) in SHAPES.items():
        if key in parsed and not isinstance(parsed[key], kind):
            where = json_text.position(text, (key,))
            raise GpuportionError(
                "GP307", source=source, where=where, why=f'"{key}" is not {name}. Mend it first.'
            )
    return parsed


def default(config: str) -> tuple[str, str]:
    """Name and program of the runtime that containers have which name none; "": docker's own."""
    members = _members(installation.read(config))
    name = str(members.get(DEFAULT) or STOCK)
    return name, str(members.get(RUNTIMES, {}).get(name, {}).get("path") or "")


def _had(record: Record | None, key: str) -> Any:
    """What the file said under `key` before us; None: nothing, or it isn't known."""
    return None if record is None else _members(record.before).get(key)


def edits(config: str, runtime_path: str, set_default: bool) -> list[Edit]:
    return [
        Edit(
            config,
            lambda text: install(text, runtime_path, set_default=set_default, source=config),
            lambda text, record: uninstall(text, record, source=config),
        )
    ]


def plan_install(
    config: str, runtime_path: str, *, set_default: bool = False, state_dir: str | None = None
) -> Change:
    """What `apply` would do to put our runtime into the file `config`."""
    (change,) = installation.plan_install(ENGINE, edits(config, runtime_path, set_default), state_dir)
    return change


def plan_uninstall(config: str, *, state_dir: str | None = None) -> Change:
    """What `apply` would do to take our runtime out of the file `config`."""
    (change,) = installation.plan_uninstall(ENGINE, edits(config, "", False), state_dir)
    return change


def apply(change: Change, *, state_dir: str | None = None, pidfile: str = PIDFILE) -> list[str]:
    """Write the file and tell dockerd; what was done, in lines for the user."""
    if change.record is None and change.after != change.before:
        lines = _take_out(change, pidfile)
        installation.forget(ENGINE, state_dir)
        return [change.done, *lines]
    lines = installation.apply(ENGINE, [change], state_dir)
    return lines if change.after == change.before else [*lines, *dockerd.reload(change.config, pidfile)]


def _take_out(change: Change, pidfile: str) -> list[str]:
    """Write a file without us so that a running dockerd forgets us as well.

    At a reload dockerd keeps a key that is merely gone, and 20.10 dies, with its containers, of a default
    runtime that is none of its runtimes. So the file first says what is to hold in so many words. Where
    dockerd can't be asked whether it has read that, it is told nothing that could be its end.
    """
    was_default = _members(change.before).get(DEFAULT) == RUNTIME
    hosts = [host for host in _members(change.before).get("hosts") or () if isinstance(host, str)]
    if not dockerd.reads(change.config, pidfile) or dockerd.info(hosts) is None:
        installation.write(change.config, change.after)
        return [UNTOLD] if was_default else dockerd.reload(change.config, pidfile)
    installation.write(change.config, _spelt_out(change.after, was_default))
    lines = dockerd.reload(change.config, pidfile)
    settled = dockerd.settles(lambda told: RUNTIME not in told["Runtimes"], hosts)
    installation.write(change.config, change.after)
    return lines if settled else [*lines, UNTOLD]


def _spelt_out(text: str | None, was_default: bool) -> str:
    """The text with its defaults as members, where ours stood."""
    spelt = text if text is not None and text.strip() else NOTHING
    if RUNTIMES not in _members(spelt):
        spelt = json_text.put(spelt, (RUNTIMES,), {})
    if was_default and DEFAULT not in _members(spelt):
        spelt = json_text.put(spelt, (DEFAULT,), STOCK)
    return spelt


def _members(text: str | None) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(text) if text is not None and text.strip() else {}
    return parsed
