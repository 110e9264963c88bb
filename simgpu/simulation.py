"""Starts and ends a simulation: a folder with a state, device nodes and the two libraries, and a CDI spec.

    <directory>/state      what the devices are and who holds what
               /dev/       nvidia0 ..., nvidiactl, nvidia-uvm, nvidia-caps/
               /lib/       libcuda.so.1, libcuda.so, libnvidia-ml.so.1
               /proc/      MIG's capabilities (mig.py)

Nothing runs: the simulated devices are the state file and the libraries that processes load.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import stat
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from gpuportion import paths
from gpuportion.errors import GpuportionError
from gpuportion.simgpu import cdi, mig, profiles, sickness, state
from gpuportion.simgpu.behaviour import Behaviour
from gpuportion.simgpu.boards import BOARDS, parse
from gpuportion.simgpu.costs import settle

DIRECTORY: Final = "/run/gpuportion-sim"
"""Where processes on the host look for a simulation that nobody named."""
CDI_DIR: Final = "/var/run/cdi"
NORMAL: Final = Behaviour()
LIBRARIES: Final = ("libcuda.so.1", "libnvidia-ml.so.1")
AMPERE: Final = 8
"""Major compute capability of the boards that change MIG mode with a reset, and keep it over reboots."""
NODE_MAJOR: Final = 195
CONTROL_NODES: Final = {"nvidiactl": (195, 255), "nvidia-uvm": (511, 0)}


@dataclass(frozen=True, slots=True)
class Device:
    index: int
    board: str
    name: str
    uuid: str
    total: int
    reserved: int


@dataclass(frozen=True, slots=True)
class Sim:
    """A simulation that is there."""

    directory: str
    devices: tuple[Device, ...]
    notes: tuple[str, ...] = ()
    """Sentences about what was left out."""

    @property
    def state(self) -> str:
        return f"{self.directory}/state"

    @property
    def proc(self) -> str:
        """What stands for /proc: `driver/nvidia-caps/mig-minors`, `devices` and so on."""
        return f"{self.directory}/proc"

    @property
    def lib(self) -> str:
        return f"{self.directory}/lib"

    def env(self) -> dict[str, str]:
        """What a process on the host needs in its environment to find these devices."""
        return {"LD_LIBRARY_PATH": self.lib, "GPUPORTION_SIM_STATE": self.state}


@dataclass(frozen=True, slots=True)
class Status:
    sim: Sim
    holders: tuple[state.Holder, ...]


def start(
    spec: str,
    directory: str = DIRECTORY,
    *,
    cdi_dir: str | None = CDI_DIR,
    costs: Mapping[str, int] | None = None,
    seed: int | None = None,
    libraries: str | None = None,
    behaviour: Behaviour = NORMAL,
) -> Sim:
    """Make the devices that `spec` names. GP107: a wrong spec or cost, or a simulation there is in use.

    `cdi_dir` None: no CDI spec. A seed draws UUIDs and the costs that are not given. `libraries` is the
    folder of the two built libraries; without it, those of this installation.
    """
    names = parse(spec)
    told = behaviour.settings(len(names))
    settled = settle(costs, seed)
    directory = os.path.abspath(directory)
    _refuse_if_used(directory)
    os.makedirs(f"{directory}/lib", mode=0o755, exist_ok=True)
    _place_libraries(f"{directory}/lib", libraries)
    notes = _make_nodes(f"{directory}/dev", len(names))
    state.make(
        f"{directory}/state",
        _settings(names, settled, seed) | told | sickness.settings(len(names)),
    )
    mig.make_fixture(directory, len(names))
    if behaviour.mig:
        mig.switch_on(f"{directory}/state")
    if not notes:
        mig.make_nodes(directory)
    sim = Sim(directory, _devices(f"{directory}/state"), notes)
    if cdi_dir is not None:
        _write_cdi(sim, cdi_dir)
    return sim


def stop(directory: str = DIRECTORY, cdi_dir: str | None = CDI_DIR) -> None:
    """Take a simulation away; one that is not there is no error. Processes keep what they have open."""
    directory = os.path.abspath(directory)
    if cdi_dir is not None and _is_ours(f"{cdi_dir}/{cdi.FILE}", directory):
        os.unlink(f"{cdi_dir}/{cdi.FILE}")
    for name in ("state", "state.new"):
        if os.path.lexists(f"{directory}/{name}"):
            os.unlink(f"{directory}/{name}")
    for folder in ("dev", "lib", "proc"):
        shutil.rmtree(f"{directory}/{folder}", ignore_errors=True)
    if os.path.isdir(directory) and not os.listdir(directory):
        os.rmdir(directory)


def status(directory: str = DIRECTORY) -> Status | None:
    """The simulation in a folder and who holds what of it; None if there is none, or one of another version."""
    path = f"{os.path.abspath(directory)}/state"
    if not state.is_current(path):
        return None
    return Status(Sim(os.path.abspath(directory), _devices(path)), tuple(state.holders(path)))


def refresh(sim: Sim, cdi_dir: str | None = CDI_DIR) -> None:
    """Device nodes and CDI spec for the MIG devices that there are now: nothing else follows them."""
    mig.make_nodes(sim.directory)
    if cdi_dir is not None:
        _write_cdi(sim, cdi_dir)


def ensure(
    spec: str, directory: str = DIRECTORY, *, cdi_dir: str | None = CDI_DIR, libraries: str | None = None
) -> Sim:
    """The simulation of `spec`: the one that is there, or a new one. GP107: another one is in use there."""
    found = status(directory)
    if not found or tuple(device.board for device in found.sim.devices) != parse(spec):
        return start(spec, directory, cdi_dir=cdi_dir, libraries=libraries)
    _place_libraries(found.sim.lib, libraries)
    if cdi_dir is not None:
        _write_cdi(found.sim, cdi_dir)
    return found.sim


def _refuse_if_used(directory: str) -> None:
    if state.is_current(f"{directory}/state") and state.living(f"{directory}/state"):
        why = "is in use by running processes. End them first, or take another folder."
        raise GpuportionError("GP107", key="the simulation", value=directory, why=why)


def _place_libraries(folder: str, libraries: str | None) -> None:
    for name in LIBRARIES:
        source = f"{libraries}/{name}" if libraries else paths.package_file(f"sim/lib/{name}")
        shutil.copyfile(source, f"{folder}/{name}.new")
        os.chmod(f"{folder}/{name}.new", 0o755)
        os.rename(f"{folder}/{name}.new", f"{folder}/{name}")
    if not os.path.lexists(f"{folder}/libcuda.so"):
        os.symlink("libcuda.so.1", f"{folder}/libcuda.so")


def _make_nodes(folder: str, count: int) -> tuple[str, ...]:
    """Device nodes as NVIDIA's driver has them; there is nothing behind them, only their presence counts."""
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder, mode=0o755)
    nodes = {**{f"nvidia{i}": (NODE_MAJOR, i) for i in range(count)}, **CONTROL_NODES}
    try:
        for name, (major, minor) in nodes.items():
            os.mknod(f"{folder}/{name}", stat.S_IFCHR | 0o666, os.makedev(major, minor))
            os.chmod(f"{folder}/{name}", 0o666)
    except PermissionError:
        return ("no device nodes were made: only root may. Containers cannot be given these devices.",)
    return ()


def _settings(names: tuple[str, ...], costs: Mapping[str, int], seed: int | None) -> dict[str, object]:
    text: dict[str, object] = {"devices": len(names)}
    text |= {f"cost.{key}": value for key, value in costs.items()}
    draw = random.Random(seed) if seed is not None else random.SystemRandom()
    for i, name in enumerate(names):
        identity = uuid.UUID(int=draw.getrandbits(128), version=4)
        text |= {f"board.{i}.{key}": value for key, value in _board(i, name, str(identity)).items()}
    return text | profiles.settings(BOARDS[name].mig for name in names)


def _board(index: int, name: str, identity: str) -> dict[str, object]:
    board = BOARDS[name]
    return {
        "board": name,
        "name": board.name,
        "uuid": f"GPU-{identity}",
        "total": board.total,
        "reserved": board.reserved,
        "cc_major": board.capability[0],
        "cc_minor": board.capability[1],
        "sms": board.sms,
        "mig": int(bool(board.mig)),
        "mig_resets": int(board.capability[0] == AMPERE),
        "profiles": profiles.number(board.mig) if board.mig else 0,
        "pci_domain": 0,
        "pci_bus": index + 1,
        "pci_device": 0,
        "pci_identity": board.pci_identity,
        "watts": board.watts,
        "clock": board.clock,
        "memory_clock": board.memory_clock,
        "pcie": board.pcie,
        "nvlinks": board.nvlinks,
        "fans": board.fans,
    }


def _devices(path: str) -> tuple[Device, ...]:
    text = state.settings(path)

    def device(i: int) -> Device:
        of = {key: text[f"board.{i}.{key}"] for key in ("board", "name", "uuid", "total", "reserved")}
        return Device(i, of["board"], of["name"], of["uuid"], int(of["total"]), int(of["reserved"]))

    return tuple(device(i) for i in range(int(text["devices"])))


def _write_cdi(sim: Sim, folder: str) -> None:
    os.makedirs(folder, mode=0o755, exist_ok=True)
    path = f"{folder}/{cdi.FILE}"
    divided = [device.index for device in sim.devices if mig.modes(sim.state, device.index)[0]]
    spec = cdi.spec(sim.directory, [device.uuid for device in sim.devices], divided, mig.devices(sim.state))
    with open(f"{path}.new", "w") as file:
        json.dump(spec, file, indent=2)
        file.write("\n")
    os.rename(f"{path}.new", path)


def _is_ours(path: str, directory: str) -> bool:
    """Whether a CDI spec is that of this simulation: another one's is not for us to remove."""
    try:
        with open(path) as file:
            return f"{directory}/state" in file.read()
    except FileNotFoundError:
        return False
