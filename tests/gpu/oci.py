"""Containers of this machine's own files, for runc: no image, no engine. The root filesystem is the host's folders,
bound read-only, and an /etc of its own; what a GPU needs comes with the grant, from a CDI spec.

Knows nothing of GPUs but the files by which a driver is used.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

FOLDERS: Final = ("bin", "sbin", "lib", "lib64", "usr", "opt")
ETC: Final = ("passwd", "group", "nsswitch.conf", "ld.so.cache", "ld.so.conf")
BIND: Final = ("rbind", "ro", "nosuid", "nodev")
NAMESPACES: Final = ("pid", "mount", "ipc", "uts")
CONTROL: Final = ("nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset")
KERNEL: Final = (
    ("/proc", "proc", ("nosuid", "noexec", "nodev")),
    ("/dev", "tmpfs", ("nosuid", "mode=755", "size=65536k")),
    ("/tmp", "tmpfs", ("nosuid", "nodev", "mode=1777")),
)


def bundle(folder: Path, args: Sequence[str], env: Mapping[str, str], more: Iterable[str]) -> Path:
    """A bundle that runs `args`; `more`: folders that it needs besides, at their own paths."""
    rootfs = folder / "rootfs"
    (rootfs / "etc").mkdir(parents=True)
    for name in ETC:
        if Path("/etc", name).is_file():
            shutil.copy(f"/etc/{name}", rootfs / "etc" / name)
    bound = [f"/{name}" for name in FOLDERS if _placed(rootfs, name)]
    bound += [path for path in _prefixes(more) if not any(path.startswith(f"{each}/") for each in bound)]
    mounts = [
        {"destination": at, "type": kind, "source": kind, "options": list(opts)} for at, kind, opts in KERNEL
    ]
    for path in dict.fromkeys(bound):
        mounts.append({"destination": path, "type": "bind", "source": path, "options": list(BIND)})
    spec: dict[str, Any] = {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": False,
            "user": {"uid": 0, "gid": 0},
            "args": list(args),
            "env": [f"{key}={value}" for key, value in env.items()],
            "cwd": "/",
        },
        "root": {"path": "rootfs"},
        "mounts": mounts,
        "linux": {"namespaces": [{"type": kind} for kind in NAMESPACES]},
    }
    (folder / "config.json").write_text(json.dumps(spec))
    return folder


def _placed(rootfs: Path, name: str) -> bool:
    """Whether a folder of the host is to be bound; where it is a link, so it is in the container."""
    path = Path("/", name)
    if path.is_symlink():
        (rootfs / name).symlink_to(os.readlink(path))
    return path.is_dir() and not path.is_symlink()


def _prefixes(more: Iterable[str]) -> list[str]:
    """Where this Python and `more` lie."""
    return [os.path.realpath(path) for path in (sys.prefix, sys.base_prefix, *more)]


def driver_spec(libcuda: str, libnvml: str, version: str, minor: int, uuid: str) -> dict[str, Any]:
    """A CDI spec of the first GPU as nvidia-ctk would write it, of the files beside the driver's two libraries."""
    libraries = {libcuda, libnvml}
    for folder in {os.path.dirname(path) for path in libraries}:
        libraries |= {f"{folder}/{name}" for name in os.listdir(folder) if _is_drivers(name, version)}
    device = {"deviceNodes": [{"path": f"/dev/nvidia{minor}"}]}
    control = [{"path": f"/dev/{name}"} for name in CONTROL if os.path.exists(f"/dev/{name}")]
    mounts = [
        {"hostPath": path, "containerPath": path, "options": ["ro", "nosuid", "nodev", "bind"]}
        for path in sorted(libraries)
    ]
    return {
        "cdiVersion": "0.5.0",
        "kind": "nvidia.com/gpu",
        "devices": [{"name": name, "containerEdits": device} for name in ("0", uuid, "all")],
        "containerEdits": {"deviceNodes": control, "mounts": mounts},
    }


def _is_drivers(name: str, version: str) -> bool:
    return (
        re.fullmatch(rf"lib(cuda|cudadebugger|nvidia-[a-z0-9-]+)\.so\.{re.escape(version)}", name) is not None
    )
