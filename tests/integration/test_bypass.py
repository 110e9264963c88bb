"""The table of docs/limits.md: each way around the interception library, tried in a real container.

A program in a container of 1 GB takes 600 MB twice. *capped*: the second is refused. *reported*: it gets both, and the
audit says so. *not stopped*: it gets both, and nobody is told.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import re
import subprocess
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.support import images, native
from tests.support.images import Content, Link
from tests.support.native import ROOT
from tests.support.node import IMAGE, PYTHON, Node

from gpuportion import client

pytestmark = pytest.mark.containers

CAPPED, REPORTED, NOT_STOPPED = "capped", "reported", "not stopped"
RESULTS = {CAPPED: [0, 2], REPORTED: [0, 0], NOT_STOPPED: [0, 0]}
LIB = "/usr/lib/x86_64-linux-gnu"
OWN = "/.gpuportion/driver/libcuda.so.1"
BARE = ("env", "-i")
TRY = (PYTHON, "/bypass_client.py")
SPOIL = "exec 3<>/.gpuportion/ledger; dd if=/dev/zero of=/proc/self/fd/3 bs=8 seek=1536 count=1 conv=notrunc"
DELETE = "; ".join(f"rm -f {path} && exit 9" for path in (OWN, "/.gpuportion/policy", "/etc/ld.so.preload"))
LEAVE = 'for f in /cgroups/cgroup.procs /cgroups/*/cgroup.procs; do echo $$ > $f; done 2>/dev/null; exec "$@"'


@dataclass(frozen=True)
class Way:
    """`words` run in a container with `options`, after the shell commands `first`, as root or with `execs`."""

    end: str
    words: Sequence[str]
    options: Sequence[str] = ()
    first: str = "true"
    execs: Sequence[str] = ()


CALL = f"{PYTHON} -c 'import ctypes, sys; libc = ctypes.CDLL(None); sys.exit(libc."
UNMOUNT = f"{CALL}umount2(sys.argv[1].encode(), 2) and 1)'"
BIND = f"{CALL}mount(sys.argv[1].encode(), sys.argv[2].encode(), None, 4096, None) and 1)'"
CHMOD = f"{PYTHON} -c 'import os; os.chmod(\"/tmp/set-uid\", 0o4755)'"


def privileged() -> tuple[str, ...]:
    """`--privileged`, or where this machine has not all capabilities to give away: what it is made of, without them."""
    status = Path("/proc/self/status").read_text()
    bounds = int(status.partition("\nCapBnd:")[2].split()[0], 16)
    missing = [name for name, bit in {"SYS_RESOURCE": 24}.items() if not bounds >> bit & 1]
    if not missing:
        return ("--privileged",)
    dropped = [f"--cap-drop={name}" for name in missing]
    return ("--cap-add=ALL", *dropped, "--security-opt=seccomp=unconfined", "--device-cgroup-rule=a *:* rwm")


WAYS = {
    "`LD_PRELOAD` unset": Way(CAPPED, ("env", "-u", "LD_PRELOAD", *TRY, "libcuda.so.1")),
    "an empty environment (`env -i`)": Way(CAPPED, (*BARE, *TRY, "libcuda.so.1")),
    "a set-uid program": Way(
        CAPPED,
        ("/tmp/set-uid",),
        first=f"cp /session /tmp/set-uid; {CHMOD}",
        execs=("-u", "1000"),
    ),
    "NVIDIA's runtime linked in (static cudart)": Way(CAPPED, ("/static-runtime",)),
    "`dlopen` of `libcuda.so`": Way(CAPPED, (*BARE, *TRY, "libcuda.so")),
    "`dlopen` of the driver's full path": Way(CAPPED, (*BARE, *TRY, f"{LIB}/libcuda.so.1")),
    "`dlmopen`: two copies in one process": Way(CAPPED, (*TRY, "dlmopen", "libcuda.so.1")),
    "a walk over the ELF file that is loaded": Way(CAPPED, (*TRY, "walk", "/libcuda.so.1")),
    "another driver in a folder that the image names (cuda-compat)": Way(
        CAPPED, (*TRY, "/usr/local/cuda/compat/libcuda.so.1")
    ),
    "another driver in any other folder": Way(REPORTED, (*TRY, "/srv/mine/libcuda.so.1")),
    "the real driver by its path in our folder": Way(REPORTED, (*TRY, OWN)),
    "a static program with a driver of its own": Way(REPORTED, ("/static",)),
    "a loader that was copied and patched": Way(CAPPED, (*BARE, "/patched-loader", *TRY, "libcuda.so.1")),
    "zeros written into the ledger": Way(REPORTED, (*TRY, "between", SPOIL)),
    "the mapped limit written over": Way(CAPPED, (*TRY, "write-limit")),
    "our files deleted": Way(CAPPED, (*TRY, "between", DELETE)),
    "`umount` with docker's capabilities": Way(
        CAPPED, (*BARE, *TRY, "libcuda.so.1"), first=f"! {UNMOUNT} {LIB}/libcuda.so.1"
    ),
    "`umount` and `mount` with `CAP_SYS_ADMIN`": Way(
        REPORTED,
        (*BARE, *TRY, f"{LIB}/libcuda.so.1"),
        options=("--cap-add=SYS_ADMIN",),
        first=f"{UNMOUNT} /etc/ld.so.preload && {BIND} {OWN} {LIB}/libcuda.so.1",
    ),
    "our code written over (`ptrace`, `/proc/PID/mem`)": Way(REPORTED, (*TRY, "patched", OWN)),
    "`--privileged`": Way(REPORTED, (*TRY, OWN), options=privileged()),
    "`--privileged --pid=host`, having left its cgroup": Way(
        NOT_STOPPED,
        ("sh", "-c", LEAVE, "sh", *TRY, OWN),
        options=(*privileged(), "--pid=host", "-v", "/sys/fs/cgroup:/cgroups"),
    ),
}


def static_runtime(folder: Path) -> Path | None:
    """A program with libcudart_static.a of NVIDIA's wheel: it asks the runtime first, then is cuda_session.c."""
    spec = importlib.util.find_spec("nvidia")
    for place in (spec.submodule_search_locations or []) if spec else []:
        for archive in Path(place).glob("cu*/lib/libcudart_static.a"):
            flags = ["-DSTATIC_RUNTIME", str(archive), "-lpthread", "-ldl", "-lrt"]
            return images.client(folder, "static-runtime", *flags)
    return None


def patched_loader(folder: Path) -> Path:
    """This machine's loader, which looks for its list of preloads where there is none."""
    loader = folder / "patched-loader"
    content = Path("/lib64/ld-linux-x86-64.so.2").read_bytes()
    assert content.count(b"/etc/ld.so.preload\0") == 1
    loader.write_bytes(content.replace(b"/etc/ld.so.preload\0", b"/etc/ld.so.prelOAD\0"))
    loader.chmod(0o755)
    return loader


@pytest.fixture(scope="module")
def image(running_node: Node, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The tests' image with the programs of the table."""
    if not Path("/lib64/ld-linux-x86-64.so.2").exists():
        pytest.skip("needs an x86-64 host: patches its loader")
    folder = tmp_path_factory.mktemp("bypass")
    files: dict[str, Content | Link] = {
        "bypass_client.py": ROOT / "tests/support/bypass_client.py",
        "session": images.client(folder, "session"),
        "static": Path(native.built("cap_static_session", "libcap_mem")),
        "patched-loader": patched_loader(folder),
        # Where distributions have it, and where a copy of the C library in another name space looks for it.
        f"{LIB[1:]}/ld-linux-x86-64.so.2": Link("/lib64/ld-linux-x86-64.so.2"),
        "usr/local/cuda/compat/libcuda.so.1": images.simulated_libcuda(),
        "srv/mine/libcuda.so.1": images.simulated_libcuda(),
    }
    runtime = static_runtime(folder)
    if runtime is not None:
        files["static-runtime"] = runtime
    return images.derive(running_node.engine, "bypass", IMAGE, files)


@contextlib.contextmanager
def plain(node: Node, image: str, options: Sequence[str]) -> Iterator[str]:
    with node.container("1G", image=image, options=options) as name:
        yield name


@pytest.fixture(scope="module")
def shared(running_node: Node, image: str) -> Iterator[str]:
    """One container for all ways that need no options and leave nothing behind."""
    with plain(running_node, image, ()) as name:
        yield name


@contextlib.contextmanager
def attempt(node: Node, name: str, way: Way) -> Iterator[list[int]]:
    """The results of both allocations; the program holds what it got until the end."""
    words = ["docker", "exec", "-i", *way.execs, name, *way.words]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        words, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=node.engine.client_env
    ) as process:
        assert process.stdin and process.stdout and process.stderr
        end = threading.Timer(100, process.kill)
        end.start()
        try:
            yield taken(process) if "bypass_client" in " ".join(way.words) else asked(process)
        finally:
            end.cancel()
            process.kill()


def taken(process: subprocess.Popen[str]) -> list[int]:
    assert process.stdout and process.stderr
    line = process.stdout.readline()
    assert line, process.stderr.read()
    return [int(result) for result in json.loads(line)]


def asked(process: subprocess.Popen[str]) -> list[int]:
    """Of cuda_session.c."""
    assert process.stdin and process.stdout and process.stderr
    line = process.stdout.readline()
    assert line and json.loads(line)["opened"] == "CUDA_SUCCESS", line or process.stderr.read()
    names = []
    for _ in range(2):
        process.stdin.write("alloc 600000000\n")
        process.stdin.flush()
        names.append(json.loads(process.stdout.readline())["result"])
    return [{"CUDA_SUCCESS": 0, "CUDA_ERROR_OUT_OF_MEMORY": 2}[name] for name in names]


def findings() -> list[dict[str, Any]]:
    found = client.ask("ps").head["findings"]
    assert isinstance(found, list)
    return found


def samples(node: Node, held: int) -> None:
    """Waits until the daemon has seen that so much is in use."""
    node.until(lambda: bool(client.ask("node").head["gpus"][0]["used"] >= held))


@pytest.mark.parametrize("title", WAYS)
def test_what_comes_of_it(request: pytest.FixtureRequest, running_node: Node, image: str, title: str) -> None:
    """As the table says."""
    way, node = WAYS[title], running_node
    if title.startswith("NVIDIA's runtime") and static_runtime(Path("/tmp")) is None:
        pytest.skip("needs libcudart_static.a, of nvidia-cuda-runtime")
    alone = way.options or way.end != CAPPED
    with contextlib.ExitStack() as stack:
        name = (
            stack.enter_context(plain(node, image, way.options))
            if alone
            else request.getfixturevalue("shared")
        )
        node.docker("exec", name, "sh", "-c", way.first)
        results = stack.enter_context(attempt(node, name, way))
        assert results == RESULTS[way.end]
        if way.end == REPORTED:
            node.until(lambda: any(one["kind"] == "over" for one in findings()))
            (found,) = findings()
            assert found["held"] >= 1200 * 10**6 > found["limit"]
        else:
            samples(node, 600 * 10**6)
            assert not findings()
    node.until(lambda: not findings())


def test_the_table_has_a_row_for_each_way_and_each_row_is_tried() -> None:
    """docs/limits.md and this file say the same."""
    text = (ROOT / "docs" / "limits.md").read_text()
    rows = dict(re.findall(r"^\| (.+?) \| \*(capped|reported|not stopped)\*", text, re.M))
    assert rows == {title: way.end for title, way in WAYS.items()}
