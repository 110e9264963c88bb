"""What MIG is in the state file, for the parts in Python: modes, instances, resets, reboots; and the fixture of
/proc/driver that goes with them.

    <directory>/proc/devices                                          "510 nvidia-caps"
               /proc/driver/nvidia-caps/mig-minors                    "gpu0/gi1/ci0/access 13"
               /proc/driver/nvidia/capabilities/mig/config, monitor
                                               /gpu0/mig/gi1/access, gi1/ci0/access    as instances come and go
               /dev/nvidia-caps/nvidia-cap1, nvidia-cap2              others by `make_nodes`, as nvidia-modprobe

Instances are made and removed by NVML alone (nvml/gpu_instances.c); state/mig.h has the numbers of the nodes.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import struct
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from gpuportion.errors import GpuportionError
from gpuportion.simgpu import state

MAJOR: Final = 510
CONFIG, MONITOR, FIRST = 1, 2, 3
INSTANCES: Final = 15
COMPUTES: Final = 8

_MODE: Final = struct.Struct("<QQ")
_RECORD: Final = struct.Struct("<QQ16s")
HEAD_SIZE: Final = 64
COMPUTE_SIZE: Final = 32
INSTANCE_SIZE: Final = 16 + COMPUTES * COMPUTE_SIZE
DEVICE_SIZE: Final = HEAD_SIZE + INSTANCES * INSTANCE_SIZE


@dataclass(frozen=True, slots=True)
class MigDevice:
    """A compute instance, with the GPU instance that it is of."""

    device: int
    gi: int
    ci: int
    uuid: str
    profile: str
    start: int
    """Of the GPU instance's memory slots."""
    index: int
    """Among those of its device, as NVML counts."""

    @property
    def minors(self) -> tuple[int, int]:
        """Of the two capability nodes by which a process may use it."""
        return minor(self.device, self.gi), minor(self.device, self.gi, self.ci)


def minor(device: int, gi: int, ci: int | None = None) -> int:
    of_instance = FIRST + (device * INSTANCES + gi) * (1 + COMPUTES)
    return of_instance if ci is None else of_instance + 1 + ci


def modes(path: str, device: int) -> tuple[bool, bool]:
    """Whether MIG is on now, and after the next reset."""
    with open(path, "rb") as file:
        current, pending = _MODE.unpack(os.pread(file.fileno(), _MODE.size, _at(device)))
    return bool(current), bool(pending)


def devices(path: str) -> list[MigDevice]:
    """All compute instances that there are."""
    text = state.settings(path)
    with open(path, "rb") as file:
        return [found for device in range(int(text["devices"])) for found in _of(file.fileno(), text, device)]


def instances(path: str, device: int) -> list[int]:
    """Ids of the GPU instances that there are, those without a compute instance too."""
    with open(path, "rb") as file:
        content = os.pread(file.fileno(), DEVICE_SIZE, _at(device))
    return [gi for gi in range(INSTANCES) if _RECORD.unpack_from(content, _instance(gi))[0]]


def reset(path: str, device: int) -> None:
    """As `nvidia-smi --gpu-reset`: the pending mode counts, and no instance is left. GP107: it is in use."""
    _refuse_if_open(path, device)
    with _changing(path) as fd:
        _, pending = modes(path, device)
        _clear(fd, path, device, pending)


def reboot(path: str) -> None:
    """Boards before Hopper keep their mode, others have none. GP107: processes have the driver open."""
    text = state.settings(path)
    count = int(text["devices"])
    for device in range(count):
        _refuse_if_open(path, device)
    with _changing(path) as fd:
        for device in range(count):
            keeps = text.get(f"board.{device}.mig_resets") == "1"
            _clear(fd, path, device, keeps and modes(path, device)[1])


def make_fixture(directory: str, count: int) -> None:
    """The files of a host on which there is no instance."""
    root = f"{directory}/proc"
    shutil.rmtree(root, ignore_errors=True)
    for device in range(count):
        os.makedirs(f"{root}/driver/nvidia/capabilities/gpu{device}/mig")
    os.makedirs(f"{root}/driver/nvidia/capabilities/mig", exist_ok=True)
    os.makedirs(f"{root}/driver/nvidia-caps", exist_ok=True)
    _write(f"{root}/devices", f"Character devices:\n195 nvidia\n{MAJOR} nvidia-caps\n511 nvidia-uvm\n")
    _write(f"{root}/driver/nvidia-caps/mig-minors", "".join(f"{line}\n" for line in _minors(count)))
    for name, number, mode in (("config", CONFIG, 0o400), ("monitor", MONITOR, 0o444)):
        text = f"DeviceFileMinor: {number}\nDeviceFileMode: {mode}\nDeviceFileModify: 1\n"
        _write(f"{root}/driver/nvidia/capabilities/mig/{name}", text, mode)


def make_nodes(directory: str) -> None:
    """The capability nodes of all instances, as nvidia-modprobe makes them; those of others go. Root's to call."""
    folder = f"{directory}/dev/nvidia-caps"
    os.makedirs(folder, mode=0o755, exist_ok=True)
    wanted = {CONFIG: 0o400, MONITOR: 0o444}
    wanted |= {number: 0o444 for found in devices(f"{directory}/state") for number in found.minors}
    for name in os.listdir(folder):
        if int(name.removeprefix("nvidia-cap")) not in wanted:
            os.unlink(f"{folder}/{name}")
    for number, mode in wanted.items():
        with contextlib.suppress(FileExistsError):
            os.mknod(f"{folder}/nvidia-cap{number}", stat.S_IFCHR | mode, os.makedev(MAJOR, number))
            os.chmod(f"{folder}/nvidia-cap{number}", mode)


def switch_on(path: str) -> None:
    """MIG mode for all boards that have it, before any process opens the driver."""
    text = state.settings(path)
    with open(path, "r+b") as file:
        for device in range(int(text["devices"])):
            if text[f"board.{device}.mig"] == "1":
                os.pwrite(file.fileno(), _MODE.pack(1, 1), _at(device))


def _at(device: int) -> int:
    return state.MIG_AT + device * DEVICE_SIZE


def _instance(gi: int) -> int:
    return HEAD_SIZE + gi * INSTANCE_SIZE


def _of(fd: int, text: dict[str, str], device: int) -> Iterator[MigDevice]:
    content = os.pread(fd, DEVICE_SIZE, _at(device))
    index = 0
    for gi in range(INSTANCES):
        there, shape, _ = _RECORD.unpack_from(content, _instance(gi))
        for ci in range(COMPUTES):
            at = _instance(gi) + 16 + ci * COMPUTE_SIZE
            serial, _, identity = _RECORD.unpack_from(content, at)
            if there and serial:
                name = text[f"mig.{text[f'board.{device}.profiles']}.{shape & 255}"].partition(" ")[0]
                text_uuid = f"MIG-{uuid.UUID(bytes=identity)}"
                yield MigDevice(device, gi, ci, text_uuid, name, shape >> 8 & 255, index)
                index += 1


def _minors(count: int) -> Iterator[str]:
    yield f"config {CONFIG}"
    yield f"monitor {MONITOR}"
    for device in range(count):
        for gi in range(INSTANCES):
            yield f"gpu{device}/gi{gi}/access {minor(device, gi)}"
            for ci in range(COMPUTES):
                yield f"gpu{device}/gi{gi}/ci{ci}/access {minor(device, gi, ci)}"


def _write(path: str, text: str, mode: int = 0o444) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(text)
    os.chmod(path, mode)


def _refuse_if_open(path: str, device: int) -> None:
    if state.opened(path, device):
        why = "is in use by running processes. End them first."
        raise GpuportionError("GP107", key="GPU", value=device, why=why)


@contextlib.contextmanager
def _changing(path: str) -> Iterator[int]:
    """Keeps NVML's calls that make and remove instances out."""
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.fcntl(fd, state.OFD_SETLKW, state.lock_of(state.CHANGE_AT, 1))
        yield fd
    finally:
        os.close(fd)


def _clear(fd: int, path: str, device: int, mode: bool) -> None:
    folder = f"{os.path.dirname(path)}/proc/driver/nvidia/capabilities/gpu{device}/mig"
    for gi in range(INSTANCES):
        os.pwrite(fd, bytes(INSTANCE_SIZE), _at(device) + _instance(gi))
        shutil.rmtree(f"{folder}/gi{gi}", ignore_errors=True)
    os.pwrite(fd, _MODE.pack(mode, mode), _at(device))
