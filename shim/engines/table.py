"""The container engines that `gpuportion install` knows: where each is configured, how, and what comes then.

Also what `gpuportion doctor` asks of each. `run` are the versions that the tests were run on (docs/engines.md).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from gpuportion.shim.engines import containerd, crio, docker, podman
from gpuportion.shim.engines.installation import Edit


@dataclass(frozen=True, slots=True)
class Engine:
    """`edits(config, runtime_path, set_default)`; `reload`: what makes the engine read it; `example`: a use.

    `program`: the engine itself, that says its version. `default(config)`: name and program of the runtime that
    containers have which name none."""

    program: str
    run: tuple[str, ...]
    default: Callable[[str], tuple[str, str]]
    config: str
    edits: Callable[[str, str, bool], list[Edit]]
    reload: str
    example: str


HANDLER: Final = (
    "a RuntimeClass with handler: gpuportion, pods with the annotation gpuportion.io/memory-limit"
)

ENGINES: Final = {
    "docker": Engine(
        "dockerd",
        ("20.10", "26.1", "28.5"),
        docker.default,
        docker.CONFIG,
        docker.edits,
        "",  # it is told, by a signal
        "docker run --rm --runtime=gpuportion -e GPU_MEMORY_LIMIT=4G IMAGE COMMAND",
    ),
    "containerd": Engine(
        "containerd",
        ("1.6", "1.7", "2.1"),
        containerd.default,
        containerd.CONFIG,
        containerd.edits,
        "containerd reads this when it starts: systemctl restart containerd; running containers go on",
        HANDLER,
    ),
    "podman": Engine(
        "podman",
        ("4.3", "5.4", "5.8"),
        podman.default,
        podman.CONFIG,
        podman.edits,
        "podman reads this with each command: nothing to restart, but podman.service if it runs",
        "podman run --rm --runtime=gpuportion -e GPU_MEMORY_LIMIT=4G IMAGE COMMAND",
    ),
    "crio": Engine(
        "crio",
        (),
        crio.default,
        crio.CONFIG,
        crio.edits,
        "CRI-O reads this when it starts: systemctl restart crio; running containers go on",
        HANDLER,
    ),
}
