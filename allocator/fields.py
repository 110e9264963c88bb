"""Reads the parts of a request: every one that makes no sense is GP304, never taken for none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gpuportion import wire
from gpuportion.allocator import fast_json
from gpuportion.errors import GpuportionError
from gpuportion.shim.image_drivers import Found


def text(message: wire.Message, key: str) -> str:
    value = message.head.get(key)
    if not isinstance(value, str) or "\0" in value:
        raise GpuportionError("GP304", why=f"{key} is no text")
    return value


def texts(message: wire.Message, key: str) -> list[str]:
    value = message.head.get(key)
    if not isinstance(value, list) or not all(isinstance(one, str) and one for one in value):
        raise GpuportionError("GP304", why=f"{key} is no list of texts")
    return value


def keys(value: object) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(one, str) for one in value.values()):
        raise GpuportionError("GP304", why="request is no object of texts")
    return value


def parts(message: wire.Message) -> tuple[bytes, bytes]:
    """config.json, and the image's own /etc/ld.so.preload."""
    size = message.head.get("preload_bytes")
    if not isinstance(size, int) or not 0 <= size <= len(message.body):
        raise GpuportionError("GP304", why="preload_bytes is no part of the body")
    cut = len(message.body) - size
    return message.body[:cut], message.body[cut:]


def image_drivers(head: Mapping[str, Any]) -> tuple[Found, ...]:
    """What of a driver is in the image, as the launcher found it."""
    return _found(head, "image_drivers")


def image_mounts(head: Mapping[str, Any]) -> dict[str, str]:
    """Where in the image destinations of mounts lead, of those that lead elsewhere by its links."""
    return {each.name: each.path for each in _found(head, "image_mounts")}


def _found(head: Mapping[str, Any], key: str) -> tuple[Found, ...]:
    if key not in head:
        return ()
    value = head[key]
    if not isinstance(value, list) or not all(_is_found(each) for each in value):
        raise GpuportionError("GP304", why=f"{key} is no list of names and paths")
    return tuple(Found(each["name"], each["path"]) for each in value)


def _is_found(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(value.get(key), str) for key in ("name", "path"))


def mounts_of(spec: dict[str, Any]) -> list[dict[str, Any]]:
    found = spec.get("mounts") or []
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def spec(config: bytes) -> dict[str, Any]:
    try:
        spec = fast_json.loads(config)
    except ValueError as problem:
        raise GpuportionError("GP304", why=f"the container's config.json is broken: {problem}") from None
    if not isinstance(spec, dict):
        raise GpuportionError("GP304", why="the container's config.json is no object")
    return spec


def environment(spec: dict[str, Any]) -> list[str]:
    process = spec.get("process")
    env = process.get("env") if isinstance(process, dict) else None
    if env is not None and not (isinstance(env, list) and {*map(type, env)} <= {str}):
        raise GpuportionError("GP304", why="process.env of the container's config.json is no list of texts")
    return env or []


def annotations_of(spec: dict[str, Any]) -> dict[str, str]:
    found = spec.get("annotations") or {}
    if not isinstance(found, dict) or not {*map(type, found.values())} <= {str}:
        raise GpuportionError(
            "GP304", why="annotations of the container's config.json are no object of texts"
        )
    return found
