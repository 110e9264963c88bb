"""How well the GPUs of a machine are linked, as NVML tells it: NVLinks and the way by PCIe."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Final

import pynvml

from gpuportion.allocator.links import from_nvml
from gpuportion.allocator.nvml.session import tried


def ranks_of(uuids: Sequence[str]) -> dict[str, dict[str, int]]:
    """By UUID, how well each GPU is linked to the others; a GPU that cannot say has none."""
    devices = {uuid: tried(pynvml.nvmlDeviceGetHandleByUUID, uuid) for uuid in uuids}
    found = {uuid: _place(device) for uuid, device in devices.items() if device is not None}
    places = {uuid: place for uuid, place in found.items() if place is not None}
    ends = {uuid: Counter(_remote_ends(devices[uuid])) for uuid in places}
    ranks = {}
    for uuid in places:
        others = [other for other in places if other != uuid]
        levels = {
            other: tried(
                pynvml.nvmlDeviceGetTopologyCommonAncestor, devices[uuid], devices[other], default=-1
            )
            for other in others
        }
        switched = {other: min(ends[uuid][SWITCH], ends[other][SWITCH]) for other in others}
        nvlinks = {other: ends[uuid][places[other]] + switched[other] for other in others}
        ranks[uuid] = from_nvml(levels, nvlinks)
    return ranks


Place = tuple[int, int, int]
SWITCH: Final[Place] = (-1, -1, -1)
"""Where an NVLink ends that leads to a switch, and so to every GPU that has one, too."""


def _place(device: Any) -> Place | None:
    """Where on the PCI bus a GPU is: what an NVLink's other end is called by."""
    info = tried(pynvml.nvmlDeviceGetPciInfo, device)
    return None if info is None else _pci(info)


def _pci(info: Any) -> Place:
    return int(info.domain), int(info.bus), int(info.device)


def _remote_ends(device: Any) -> Iterator[Place]:
    """Where each active NVLink of a GPU leads."""
    for link in range(pynvml.NVML_NVLINK_MAX_LINKS):
        state = tried(pynvml.nvmlDeviceGetNvLinkState, device, link)
        if state is None:
            return
        if not state:
            continue
        kind = tried(pynvml.nvmlDeviceGetNvLinkRemoteDeviceType, device, link)
        if kind == pynvml.NVML_NVLINK_DEVICE_TYPE_SWITCH:
            yield SWITCH
        elif (info := tried(pynvml.nvmlDeviceGetNvLinkRemotePciInfo, device, link)) is not None:
            yield _pci(info)
