"""Images whose glibc is older than this machine's, each held to its grant by the same libraries as any other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest
from tests.native import debian, ubuntu
from tests.support import images
from tests.support.images import Content, Link
from tests.support.node import Node
from tests.support.session import holds_to_1g

pytestmark = pytest.mark.containers

HEADERS: Final = ("libc6", "libc6-dev", "linux-libc-dev")
CTYPES: Final = Path(images.__file__).with_name("ctypes_session.py")


@dataclass(frozen=True)
class Older:
    """A system that no longer is new, and the CUDA client that its Python runs."""

    suite: str
    python: str
    client: str
    system: Callable[..., Path]
    unpacked: Callable[..., Path]
    more: Callable[[], Mapping[str, Content | Link]]
    env: dict[str, str] = field(default_factory=dict)


def bindings() -> Mapping[str, Content | Link]:
    """NVIDIA's cuda-bindings, for the client that all containers of these tests have."""
    return {"opt/site": images.fetched(images.bindings_for_python39)}


def ctypes_alone() -> Mapping[str, Content | Link]:
    """Of a Python that NVIDIA's bindings don't run on."""
    return {"ctypes_session.py": CTYPES}


SITE: Final = {"PYTHONPATH": "/opt/site"}
OLDER: Final = {
    "2.31": Older("bullseye", "3.9", "/client.py", debian.system, debian.unpacked, bindings, SITE),
    "2.27": Older("bionic", "3.6", "/ctypes_session.py", ubuntu.system, ubuntu.unpacked, ctypes_alone),
    "2.23": Older("xenial", "3.5", "/ctypes_session.py", ubuntu.system, ubuntu.unpacked, ctypes_alone),
}


@dataclass(frozen=True)
class Image:
    name: str
    programs: dict[str, tuple[str, ...]]
    """A C client that is linked with libcuda.so.1 and without libdl, and Python."""
    bare: tuple[str, ...]
    """What empties the environment but for what its Python needs."""


@pytest.fixture(scope="module", params=OLDER)
def image(
    request: pytest.FixtureRequest, running_node: Node, tmp_path_factory: pytest.TempPathFactory
) -> Image:
    """The system as its packages are, and a C client that was linked against its C library."""
    version, older = str(request.param), OLDER[request.param]
    packages = ("python3-minimal", f"libpython{older.python}-stdlib", "dash", "coreutils")
    root = images.fetched(older.system, f"{older.suite}-python", older.suite, *packages)
    headers = images.fetched(older.unpacked, f"glibc-{version}-dev", older.suite, "main", *HEADERS)
    folder = tmp_path_factory.mktemp("clients")
    files = {
        "session": images.old_direct_client(folder, f"session-{version}", headers),
        "etc/passwd": b"root:x:0:0:root:/root:/bin/sh\n",
        **older.more(),
    }
    name = images.import_root(running_node.engine, older.suite, root, files, env=older.env)
    bare = ("env", "-i", *(f"{key}={value}" for key, value in older.env.items()))
    return Image(name, {"C": ("/session",), "Python": ("/usr/bin/python3", older.client)}, bare)


@pytest.mark.parametrize("program", ["C", "Python"])
def test_an_older_glibc(node: Node, image: Image, program: str) -> None:
    """Where dlopen isn't in libc: a direct link without libdl, and Python. Every symbol is bound at the start."""
    options = ["-e", "LD_BIND_NOW=1"]
    with node.session("1G", image=image.name, command=image.programs[program], options=options) as client:
        holds_to_1g(client)


@pytest.mark.parametrize("program", ["C", "Python"])
def test_an_older_glibc_without_environment(node: Node, image: Image, program: str) -> None:
    """By /etc/ld.so.preload alone."""
    with (
        node.container("1G", image=image.name) as name,
        node.exec_session(name, wrapper=image.bare, command=image.programs[program]) as client,
    ):
        holds_to_1g(client)
