"""docker's daemon.json: our runtime in it, and out again.

`install` and `uninstall` are pure: text in, text out. The shell below reads, writes, remembers and tells the
running dockerd, which reads `runtimes` and `default-runtime` anew at SIGHUP.

What a file was before us is remembered in a record, so that `uninstall` gives back the very bytes if nobody
edited in between, and otherwise takes out exactly our keys. `runtimeArgs` is never written: docker makes an
unquoted shell script of it.

    /var/lib/gpuportion/install/docker.json     the record; GPUPORTION_STATE_DIR moves the folder above
"""

from __future__ import annotations

import difflib
import json
import os
from dataclasses import asdict, dataclass
from typing import Any, Final

from gpuportion import paths
from gpuportion.errors import GpuportionError
from gpuportion.shim.engines import config_file, dockerd, json_text

RUNTIME: Final = "gpuportion"
RUNTIMES: Final = "runtimes"
DEFAULT: Final = "default-runtime"
CONFIG: Final = "/etc/docker/daemon.json"
PIDFILE: Final = "/var/run/docker.pid"
NOTHING: Final = "{}\n"
STOCK: Final = "runc"
"""dockerd's default runtime if nothing else is said."""
UNTOLD: Final = f"docker knows the runtime {RUNTIME} until it is restarted: systemctl restart docker"
SHAPES: Final[dict[str, tuple[type, str]]] = {RUNTIMES: (dict, "an object"), DEFAULT: (str, "a text")}


@dataclass(frozen=True, slots=True)
class Record:
    """What one installation did to a file: enough to undo it. Texts are the file's; None: there was none."""

    config: str
    before: str | None
    after: str
    default_before: str | None
    runtimes_made: bool


@dataclass(frozen=True, slots=True)
class Change:
    """What a file is and what it would be; None: it is not there. `record` goes with it."""

    config: str
    before: str | None
    after: str | None
    record: Record | None

    @property
    def diff(self) -> str:
        """As `diff -u` prints it; empty: nothing to do."""
        old, new = (_lines(text) for text in (self.before, self.after))
        here, there = (self.config if text is not None else "/dev/null" for text in (self.before, self.after))
        return "".join(difflib.unified_diff(old, new, here, there))


def _lines(text: str | None) -> list[str]:
    lines = (text or "").splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n\\ No newline at end of file\n"
    return lines


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
    if parsed.get(RUNTIMES, {}).keys() == {RUNTIME} and (record is None or record.runtimes_made):
        new = json_text.cut(new, (RUNTIMES,))
    if parsed.get(DEFAULT) == RUNTIME:
        was = record.default_before if record is not None else None
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


def installed(text: str | None, record: Record | None, config: str, after: str) -> Record:
    """The record of an installation. `before` is what `uninstall` would give now, so that installing twice,
    or over somebody's edit, still undoes all of ours and nothing else."""
    before = uninstall(text, record, source=config)
    parsed = json_text.check(before, config) if before and before.strip() else {}
    return Record(config, before, after, parsed.get(DEFAULT), RUNTIMES not in parsed)


def plan_install(
    config: str, runtime_path: str, *, set_default: bool = False, state_dir: str | None = None
) -> Change:
    """What `apply` would do to put our runtime into the file `config`."""
    text, record = _text(config), recorded(state_dir, config)
    after = install(text, runtime_path, set_default=set_default, source=config)
    return Change(config, text, after, installed(text, record, config, after))


def plan_uninstall(config: str, *, state_dir: str | None = None) -> Change:
    """What `apply` would do to take our runtime out of the file `config`."""
    text = _text(config)
    return Change(config, text, uninstall(text, recorded(state_dir, config), source=config), None)


def apply(change: Change, *, state_dir: str | None = None, pidfile: str = PIDFILE) -> list[str]:
    """Write the file and tell dockerd; what was done, in lines for the user."""
    if change.after == change.before:
        if change.record is None:
            _forget(state_dir)
        return [f"{change.config} is as it should be: nothing to do"]
    verb = "removed" if change.after is None else "created" if change.before is None else "changed"
    done = f"{verb} {change.config}"
    if change.record is None:
        lines = _take_out(change, pidfile)
        _forget(state_dir)
        return [done, *lines]
    # The record goes first: a crash in between leaves one that matches no file, and so only names our keys.
    _remember(state_dir, change.record)
    _write(change.config, change.after)
    return [done, *dockerd.reload(change.config, pidfile)]


def _take_out(change: Change, pidfile: str) -> list[str]:
    """Write a file without us so that a running dockerd forgets us as well.

    At a reload dockerd keeps a key that is merely gone, and 20.10 dies, with its containers, of a default
    runtime that is none of its runtimes. So the file first says what is to hold in so many words. Where
    dockerd can't be asked whether it has read that, it is told nothing that could be its end.
    """
    was_default = _members(change.before).get(DEFAULT) == RUNTIME
    hosts = [host for host in _members(change.before).get("hosts") or () if isinstance(host, str)]
    if not dockerd.reads(change.config, pidfile) or dockerd.info(hosts) is None:
        _write(change.config, change.after)
        return [UNTOLD] if was_default else dockerd.reload(change.config, pidfile)
    _write(change.config, _spelt_out(change.after, was_default))
    lines = dockerd.reload(change.config, pidfile)
    settled = dockerd.settles(lambda told: RUNTIME not in told["Runtimes"], hosts)
    _write(change.config, change.after)
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


def _write(config: str, text: str | None) -> None:
    if text is None:
        config_file.remove(config)
    else:
        config_file.replace(config, text.encode())


def recorded(state_dir: str | None, config: str) -> Record | None:
    """What is remembered of an installation into the file `config`."""
    data = config_file.read(_record_path(state_dir))
    if data is None:
        return None
    try:
        record = Record(**json.loads(data))
    except (ValueError, TypeError):
        return None  # of another version, or damaged: our keys can still be found by their names
    return record if os.path.realpath(record.config) == os.path.realpath(config) else None


def _text(config: str) -> str | None:
    data = config_file.read(config)
    try:
        return None if data is None else data.decode()
    except UnicodeDecodeError as problem:
        line = data.count(b"\n", 0, problem.start) + 1 if data else 1
        why = "it is not UTF-8 text. Mend it first."
        raise GpuportionError("GP307", source=config, where=f"line {line}", why=why) from None


def _record_path(state_dir: str | None) -> str:
    return f"{state_dir or paths.state_dir()}/install/docker.json"


def _remember(state_dir: str | None, record: Record) -> None:
    text = json.dumps(asdict(record), indent=2, ensure_ascii=False)
    config_file.replace(_record_path(state_dir), f"{text}\n".encode())


def _forget(state_dir: str | None) -> None:
    config_file.remove(_record_path(state_dir))
