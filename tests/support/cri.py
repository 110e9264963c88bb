"""Speaks a container engine's CRI socket as kubelet does: gRPC, with just the messages that the tests need.

Written by hand from Kubernetes' cri-api (pkg/apis/runtime/v1/api.proto), for Debian has no crictl and nobody
publishes the generated classes. A message is a table of its fields; values are dicts by the fields' names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

SERVICE: Final = "/runtime.v1.RuntimeService"
Field = tuple[int, str]
"""(number, the message that it holds; "": a text or a number)"""
PAIR: Final = "Pair"
SCHEMA: Final[dict[str, dict[str, Field]]] = {
    PAIR: {"key": (1, ""), "value": (2, "")},
    "RunPodSandbox": {"config": (1, "PodSandboxConfig"), "runtime_handler": (2, "")},
    "PodSandboxConfig": {
        "metadata": (1, "PodSandboxMetadata"),
        "log_directory": (3, ""),
        "annotations": (7, PAIR),
        "linux": (8, "LinuxPodSandboxConfig"),
    },
    "PodSandboxMetadata": {"name": (1, ""), "uid": (2, ""), "namespace": (3, "")},
    "LinuxPodSandboxConfig": {"security_context": (2, "LinuxSandboxSecurityContext")},
    "LinuxSandboxSecurityContext": {"namespace_options": (1, "NamespaceOption")},
    "NamespaceOption": {"network": (1, ""), "pid": (2, ""), "ipc": (3, "")},
    "CreateContainer": {
        "pod_sandbox_id": (1, ""),
        "config": (2, "ContainerConfig"),
        "sandbox_config": (3, "PodSandboxConfig"),
    },
    "ContainerConfig": {
        "metadata": (1, "ContainerMetadata"),
        "image": (2, "ImageSpec"),
        "command": (3, ""),
        "envs": (6, PAIR),
        "mounts": (7, "Mount"),
        "linux": (15, "LinuxContainerConfig"),
    },
    "ContainerMetadata": {"name": (1, "")},
    "ImageSpec": {"image": (1, "")},
    "Mount": {"container_path": (1, ""), "host_path": (2, ""), "readonly": (3, "")},
    "LinuxContainerConfig": {"security_context": (2, "LinuxContainerSecurityContext")},
    "LinuxContainerSecurityContext": {"namespace_options": (3, "NamespaceOption")},
    "StartContainer": {"container_id": (1, "")},
    "ExecSync": {"container_id": (1, ""), "cmd": (2, ""), "timeout": (3, "")},
    "StopContainer": {"container_id": (1, ""), "timeout": (2, "")},
    "RemoveContainer": {"container_id": (1, "")},
    "StopPodSandbox": {"pod_sandbox_id": (1, "")},
    "RemovePodSandbox": {"pod_sandbox_id": (1, "")},
}
POD, NODE = 0, 2
"""NamespaceMode: of the pod, of the host."""


class CriError(Exception):
    """What kubelet would show of a call that failed."""


class Cri:
    """A CRI socket. `call("RunPodSandbox", ...)` gives the answer's fields by number."""

    def __init__(self, socket: str) -> None:
        import grpc

        self._failure: type[Exception] = grpc.RpcError
        self._channel = grpc.insecure_channel(f"unix://{socket}", [("grpc.enable_http_proxy", 0)])

    def call(self, method: str, **values: Any) -> dict[int, bytes]:
        unary = self._channel.unary_unary(f"{SERVICE}/{method}", None, None)
        request = encode(method, values) if values else b""
        try:
            return dict(fields(unary(request, timeout=60, wait_for_ready=True)))
        except self._failure as problem:
            raise CriError(str(getattr(problem, "details", problem.__str__)())) from None

    def close(self) -> None:
        self._channel.close()


def encode(message: str, values: Mapping[str, Any]) -> bytes:
    """The message in protobuf's wire format; lists are repeated fields, maps are lists of pairs."""
    out = b""
    for name, value in values.items():
        number, kind = SCHEMA[message][name]
        for one in value if isinstance(value, list) else [value]:
            out += _field(number, encode(kind, one) if kind else one)
    return out


def pairs(values: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in values.items()]


def _field(number: int, value: str | int | bytes) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(number, content) of an answer's fields; numbers as their decimal text."""
    at = 0
    while at < len(data):
        tag, at = _read_varint(data, at)
        value, at = _read_varint(data, at)
        if tag & 7 == 0:
            yield tag >> 3, str(value).encode()
            continue
        yield tag >> 3, data[at : at + value]
        at += value


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at
