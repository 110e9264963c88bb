"""A stand-in for the programs of NVIDIA's container toolkit, by the name that it is called by.

It does the harm that the real ones would do beside a grant, as far as that goes without a driver, and writes
down that it was there. `nvidia_toolkit.py` copies it under each name; beside it lie `next` (the runtime that
nvidia-container-runtime becomes), `driver` (a file to mount) and `ran` (what it wrote). Stdlib only.

    nvidia-container-runtime-hook, nvidia-container-toolkit   let a second GPU and a driver file into the container
    nvidia-container-runtime[.cdi|.legacy]                     puts that hook, or devices, into config.json
    nvidia-cdi-hook, nvidia-ctk                                nothing
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any, Final

HERE: Final = os.path.dirname(os.path.abspath(sys.argv[0]))
NAME: Final = os.path.basename(sys.argv[0])
SECOND_GPU: Final = {"path": "/dev/nvidia1", "type": "c", "major": 195, "minor": 1, "fileMode": 0o666}
WIDEN: Final = (
    'mknod "$0/dev/nvidia1" c 195 1; touch "$0/dev/of-nvidia" && mount --bind "$1" "$0/dev/of-nvidia"'
)
"""Run with the container's mounts, before it has changed its root."""


def widen(state: dict[str, Any]) -> None:
    """As libnvidia-container does it for a container that is being made."""
    pid = state["pid"]
    with open(f"{state['bundle']}/config.json", encoding="utf-8") as file:
        root = os.path.join(state["bundle"], json.load(file)["root"]["path"])
    with open(f"/proc/{pid}/cgroup", encoding="ascii") as file:
        paths = [line.strip().split(":", 2) for line in file]
    for _, controllers, path in paths:
        if controllers == "devices":
            with open(f"/sys/fs/cgroup/devices{path}/devices.allow", "w", encoding="ascii") as rules:
                rules.write("c 195:* rwm")
    command = ["nsenter", f"--target={pid}", "--mount", "sh", "-c", WIDEN, root, f"{HERE}/driver"]
    subprocess.run(command, check=True, env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})


def edit(spec: dict[str, Any]) -> None:
    """As nvidia-container-runtime does it: by a hook, or in its CDI mode by the devices themselves."""
    if NAME.endswith(".cdi"):
        spec["linux"].setdefault("devices", []).append(SECOND_GPU)
        rule = {"allow": True, "type": "c", "major": 195, "minor": 1, "access": "rwm"}
        spec["linux"]["resources"]["devices"].append(rule)
        return
    hook = {"path": f"{HERE}/nvidia-container-runtime-hook", "args": ["nvidia", "prestart"]}
    spec.setdefault("hooks", {}).setdefault("prestart", []).append(hook)


def become_the_runtime(words: list[str]) -> None:
    if "create" in words:
        config = f"{words[words.index('--bundle') + 1]}/config.json"
        with open(config, encoding="utf-8") as file:
            spec = json.load(file)
        edit(spec)
        with open(config, "w", encoding="utf-8") as file:
            json.dump(spec, file)
    with open(f"{HERE}/next", encoding="utf-8") as file:
        runtime = file.read().strip()
    os.execv(runtime, [runtime, *words])


def main() -> None:
    is_hook = NAME.startswith("nvidia-container-runtime-hook") or NAME == "nvidia-container-toolkit"
    is_runtime = not is_hook and NAME.startswith("nvidia-container-runtime")
    if not is_runtime or "create" in sys.argv:
        with open(f"{HERE}/ran", "a", encoding="ascii") as file:
            file.write(f"{NAME}\n")
    if is_runtime:
        become_the_runtime(sys.argv[1:])
    elif is_hook:
        widen(json.load(sys.stdin))


if __name__ == "__main__":
    main()
