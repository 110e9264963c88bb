"""A CDI spec as nvidia-ctk writes it, and an Injection made of it, for the tests of the spec edit."""

from __future__ import annotations

from typing import Any

from gpuportion.hooks import stages
from gpuportion.shim import cdi
from gpuportion.shim import driver as parts
from gpuportion.shim.driver import Driver, Libraries
from gpuportion.shim.spec import Injection, Interposer

LIB = "/usr/lib/x86_64-linux-gnu"
UUID = "GPU-11111111-2222-3333-4444-555555555555"
OPTIONS = ["ro", "nosuid", "nodev", "rbind", "rprivate"]
FILES = [
    f"{LIB}/libcuda.so.550.54.15",
    f"{LIB}/libnvidia-ml.so.550.54.15",
    f"{LIB}/libnvidia-ptxjitcompiler.so.550.54.15",
    "/usr/bin/nvidia-smi",
    "/run/nvidia-persistenced/socket",
]
NUMBERS = {
    "/dev/nvidia0": ("c", 195, 0),
    "/dev/nvidia1": ("c", 195, 1),
    "/dev/nvidiactl": ("c", 195, 255),
    "/dev/nvidia-uvm": ("c", 511, 0),
    "/dev/dri/renderD128": ("c", 226, 128),
}


def hook(*args: str, **more: Any) -> dict[str, Any]:
    words = ["nvidia-cdi-hook", *args]
    return {"hookName": "createContainer", "path": "/usr/bin/nvidia-cdi-hook", "args": words, **more}


def document() -> dict[str, Any]:
    """Two GPUs by index and UUID, and "all"; a new one each time."""
    first = {"deviceNodes": [{"path": "/dev/nvidia0"}, {"path": "/dev/dri/renderD128"}]}
    second = {"deviceNodes": [{"path": "/dev/nvidia1", "hostPath": "/dev/nvidia1"}]}
    both = {"deviceNodes": [{"path": "/dev/nvidia0"}, {"path": "/dev/nvidia1"}]}
    names = {"0": first, UUID: first, "1": second, "all": both}
    return {
        "cdiVersion": "0.5.0",
        "kind": "nvidia.com/gpu",
        "devices": [{"name": name, "containerEdits": edits} for name, edits in names.items()],
        "containerEdits": {
            "env": [f"NVIDIA_CTK_LIBCUDA_DIR={LIB}", "NVIDIA_VISIBLE_DEVICES=void"],
            "deviceNodes": [{"path": "/dev/nvidiactl"}, {"path": "/dev/nvidia-uvm"}],
            "hooks": [
                hook(
                    "create-symlinks",
                    "--link",
                    f"libcuda.so.1::{LIB}/libcuda.so",
                    env=["NVIDIA_CTK_DEBUG=false"],
                ),
                hook("update-ldcache", "--folder", LIB),
            ],
            "mounts": [{"hostPath": path, "containerPath": path, "options": OPTIONS} for path in FILES],
        },
    }


def driver(device: str = "0", **changes: Any) -> Driver:
    """The parts of one GPU of `document()`. `changes`: `edits`, `device_numbers`, or of our libraries."""
    libraries = {
        "library": "/opt/gpuportion/lib/libcap_mem.so",
        "nvml_library": "/opt/gpuportion/lib/libcap_nvml.so",
        "alias": "/opt/gpuportion/lib/libcap_alias.so",
    }
    library, nvml, alias = (changes.get(name, path) for name, path in libraries.items())
    edits = changes.get("edits") or cdi.edits(SPECS, cdi.GPU_KIND, [device])
    return parts.driver(edits, changes.get("device_numbers", NUMBERS), Libraries(library, nvml, alias))


def injection(device: str = "0", **changes: Any) -> Injection:
    """What the daemon would fill in for a grant on one GPU of `document()`. `changes`: of it, its interposer or
    its driver."""
    grant = "/run/gpuportion/grants/00112233445566778899aabbccddeeff"
    interposer: dict[str, Any] = {
        "policy": f"{grant}/policy",
        "ledger": f"{grant}/ledger/ledger",
        "preload": f"{grant}/ld.so.preload",
        "image_drivers": (),
        "image_mounts": {},
    }
    interposer |= {key: changes.pop(key) for key in interposer if key in changes}
    of_driver = {key: changes.pop(key) for key in OF_DRIVER if key in changes}
    values: dict[str, Any] = {
        "driver": driver(device, **of_driver),
        "hooks": stages.entries(
            "/opt/gpuportion/bin/gpuportion-hook",
            socket="/run/gpuportion/gpuportiond.sock",
            token="00112233445566778899aabbccddeeff",
            container="c1",
        ),
        "cdi_paths": cdi.targets(SPECS, cdi.GPU_KIND),
        "driver_majors": frozenset({195, 511}),
    }
    return Injection(**{"interposer": Interposer(**interposer), **values, **changes})


SPECS = [cdi.parse(document(), "/etc/cdi/nvidia.yaml")]
OF_DRIVER = ("edits", "device_numbers", "library", "nvml_library", "alias")
