"""Reads the CDI specs of a host, and makes one with nvidia-ctk where there is none.

    /etc/cdi/*.yaml|json          an administrator's
    /var/run/cdi/*.yaml|json      what tools keep up to date: goes before /etc/cdi
    <run dir>/cdi/nvidia.json     ours, made by `nvidia-ctk cdi generate` when none of the above is of a GPU

A spec of the GPU kind that can't be used is an error, never skipped: the next one would hand over something
else. Folders are listed and files parsed again only when their inode, size or time changed, so that a reserve costs a
few stats. What they mean is `gpuportion.shim.cdi`'s.
"""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import tempfile
import time
from collections.abc import Sequence
from typing import Final

from gpuportion import paths
from gpuportion.allocator import yaml_text
from gpuportion.errors import GpuportionError
from gpuportion.shim import cdi

FOLDERS: Final = ("/etc/cdi", "/var/run/cdi")
"""By ascending priority."""
SUFFIXES: Final = (".json", ".yaml", ".yml")
CTK_FOLDERS: Final = ("/usr/bin", "/usr/local/bin")
CTK_ENV: Final = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
CTK_TIMEOUT: Final = 30.0
MAX_BYTES: Final = 4 << 20
WAY_OUT: Final = (
    "Install the NVIDIA Container Toolkit, then: nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml"
)

MISLEADING: Final = re.compile("no such file or directory|executable file not found|permission denied", re.I)

SETTLED: Final = 2_000_000_000
"""Nanoseconds without a change after which a folder's time is trusted to tell of the next one: file systems count in
steps, the coarsest of two seconds."""

_Stamp = tuple[int, int, int, int]
"""Device, inode, size, time of the last change in ns: whether a file or folder is still as it was when it was read. The
time is one that nobody can set, as a program that copies files sets that of the content."""


def folders() -> tuple[str, ...]:
    """Where CDI specs lie, by ascending priority. `GPUPORTION_CDI_DIRS` (colons) moves it: tests, demo."""
    given = os.environ.get("GPUPORTION_CDI_DIRS")
    return tuple(given.split(":")) if given else FOLDERS


class CdiFiles:
    """The CDI specs of one kind on this host. Not for several threads at once."""

    def __init__(
        self,
        where: Sequence[str] | None = None,
        *,
        made: str | None = None,
        ctk_folders: Sequence[str] = CTK_FOLDERS,
        kind: str = cdi.GPU_KIND,
    ) -> None:
        self.where = tuple(folders() if where is None else where)
        self.made = made or f"{paths.run_dir()}/cdi/nvidia.json"
        self.ctk_folders = tuple(ctk_folders)
        self.kind = kind
        self._parsed: dict[str, tuple[_Stamp, cdi.Spec | None]] = {}
        self._last: tuple[dict[str, _Stamp | None], tuple[cdi.Spec, ...]] = ({}, ())
        """Folders and what was in them, as they were, and the specs that were found."""

    def specs(self) -> tuple[cdi.Spec, ...]:
        """Every spec of the kind, at least one. GpuportionError GP302 says what is broken or missing."""
        found = self._found()
        if found:
            return found
        spec = self._spec(self.made, _stamp(self.made), len(self.where))
        if spec is None or missing(spec.edits):  # none yet, or of a driver that has gone since
            self._make()
            spec = self._spec(self.made, _stamp(self.made), len(self.where))
        if spec is None:
            raise GpuportionError("GP302", why=f"{self.made} is not of {self.kind}. {WAY_OUT}")
        return (spec,)

    def _found(self) -> tuple[cdi.Spec, ...]:
        stamps, specs = self._last
        if stamps and [_stamp(path) for path in stamps] == [*stamps.values()]:
            return specs
        stamps = {folder: _stamp(folder) for folder in self.where}
        settled = all([stamp is None or time.time_ns() - stamp[3] > SETTLED for stamp in stamps.values()])
        found = []
        for priority, folder in enumerate(self.where):
            for path in _paths(folder):
                stamps[path] = _stamp(path)
                found.append(self._spec(path, stamps[path], priority))
        specs = tuple([spec for spec in found if spec is not None])
        self._last = (stamps, specs) if settled else ({}, ())
        return specs

    def _spec(self, path: str, stamp: _Stamp | None, priority: int) -> cdi.Spec | None:
        if stamp is None:  # gone since its folder was listed, or a link to nothing
            return None
        known = self._parsed.get(path)
        if known is None or known[0] != stamp:
            known = (stamp, _read(path, priority, self.kind))
            self._parsed[path] = known
        return known[1]

    def _make(self) -> None:
        candidates = (f"{folder}/nvidia-ctk" for folder in self.ctk_folders)
        ctk = next((path for path in candidates if os.access(path, os.X_OK)), None)
        if ctk is None:
            looked = ", ".join(self.where)
            why = f"no CDI spec of {self.kind} in {looked}, and no nvidia-ctk to make one. {WAY_OUT}"
            raise GpuportionError("GP302", why=why)
        text = _generated(ctk)
        try:
            document = _document(text, "its output", is_json=True)
        except GpuportionError as problem:
            raise GpuportionError("GP302", why=f"{ctk} made no usable CDI spec: {problem}") from None
        cdi.parse(document, f"made by {ctk}")
        _write(self.made, text)


def missing(edits: cdi.ContainerEdits) -> str | None:
    """The first file that a spec would mount and that this host no longer has; None: all are there."""
    return next((mount.source for mount in edits.mounts if _kind(mount.source) is None), None)


def require_files(edits: cdi.ContainerEdits) -> None:
    """GpuportionError GP302 if a file to mount is gone, or if a folder to mount has the driver in it, which a program
    would then open there, past the limit."""
    for mount in edits.mounts:
        kind = _kind(mount.source)
        if kind is None:
            raise _gone(mount.source)
        if kind != stat.S_IFDIR:
            continue
        found = _driver_in(mount.source)
        if found is not None:
            why = f"the CDI spec of the GPU mounts the folder {mount.source} with {found} in it, which can't be held"
            raise GpuportionError(
                "GP302", why=f"{why}; it must name the driver's files one by one. {cdi.ANEW}"
            )


def require_sources(edits: cdi.ContainerEdits) -> None:
    """GpuportionError GP302 if a file to mount is gone: runc's own words for it would not say what to do."""
    gone = missing(edits)
    if gone is not None:
        raise _gone(gone)


def _gone(path: str) -> GpuportionError:
    why = f"the CDI spec of the GPU names {path}, which is gone: it is older than the driver. {cdi.ANEW}"
    return GpuportionError("GP302", why=why)


def _kind(path: str) -> int | None:
    """What it is or leads to, as in st_mode; None: it is not there."""
    try:
        return stat.S_IFMT(os.stat(path).st_mode)
    except OSError:
        return None


def _driver_in(path: str) -> str | None:
    """The first libcuda or NVML in a folder or below; None: there is none."""
    for folder, _, names in os.walk(path):
        for name in names:
            if cdi.LIBCUDA.fullmatch(name) or cdi.LIBNVML.fullmatch(name):
                return f"{folder}/{name}"
    return None


def _paths(folder: str) -> list[str]:
    """Of the files in a folder that may be specs."""
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [f"{folder}/{name}" for name in sorted(names) if name.endswith(SUFFIXES) and name[0] != "."]


def _stamp(path: str) -> _Stamp | None:
    """None: it is not there."""
    try:
        now = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return now.st_dev, now.st_ino, now.st_size, now.st_ctime_ns


def _read(path: str, priority: int, kind: str) -> cdi.Spec | None:
    """The spec in a file; None if it is of another kind: that is no business of ours, even broken."""
    with open(path, "rb") as file:
        status = os.fstat(file.fileno())
        raw = file.read(MAX_BYTES)  # what lies behind is missing, and so the file is broken
    ours = kind.encode() in raw
    try:
        document = _document(raw.decode(), path, is_json=path.endswith(".json"))
    except (GpuportionError, UnicodeDecodeError) as problem:
        if not ours:
            return None
        why = "it is not UTF-8 text" if isinstance(problem, UnicodeDecodeError) else problem
        raise GpuportionError("GP302", why=f"the CDI spec {path} can't be read: {why}") from None
    if not isinstance(document, dict) or document.get("kind") != kind:
        return None
    _check_owner(path, status)
    return cdi.parse(document, path, priority)


def _check_owner(path: str, status: os.stat_result) -> None:
    """A spec's hooks run as root and its mounts are the host's: only root may have written it."""
    if status.st_uid not in (0, os.geteuid()) or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        mend = f"chown root {path} && chmod 644 {path}"
        raise GpuportionError(
            "GP302", why=f"the CDI spec {path} can be written by others than root. Run: {mend}"
        )


def _document(text: str, source: str, *, is_json: bool) -> object:
    if not is_json:
        return yaml_text.load(text, source)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as problem:
        where, why = "somewhere", "it is nested too deeply"
        if isinstance(problem, json.JSONDecodeError):
            where, why = f"line {problem.lineno}, column {problem.colno}", problem.msg
        raise GpuportionError("GP307", source=source, where=where, why=why) from None


def _generated(ctk: str) -> str:
    command = [ctk, "cdi", "generate", "--format=json"]
    try:
        done = subprocess.run(
            command,
            env=CTK_ENV,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=CTK_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        why = f"`{' '.join(command)}` did not end within {CTK_TIMEOUT:g} s"
        raise GpuportionError("GP302", why=why) from None
    except OSError as problem:
        raise GpuportionError("GP302", why=f"{ctk} can't be run (errno {problem.errno})") from None
    if done.returncode != 0:
        why = f"`{' '.join(command)}` failed with status {done.returncode}: {_last_words(done.stderr)}"
        raise GpuportionError("GP302", why=why)
    return done.stdout.decode(errors="replace")


def _last_words(stderr: bytes) -> str:
    """Of a program's complaint, less the phrases by which docker picks another exit status than 125."""
    lines = stderr.decode(errors="replace").strip().splitlines()
    return MISLEADING.sub("not accessible", lines[-1][:300]) if lines else "no message"


def _write(path: str, text: str) -> None:
    """Whole or not at all: a crash must not leave half a spec that then counts."""
    folder = os.path.dirname(path)
    os.makedirs(folder, mode=0o755, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=folder, prefix=".nvidia-")
    with open(handle, "w") as file:
        os.fchmod(file.fileno(), 0o644)
        file.write(text)
    os.replace(temporary, path)
