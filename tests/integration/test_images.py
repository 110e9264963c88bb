"""Images as people bring them, each held to its grant: of musl, of an init system, of NVIDIA's."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.native import debian
from tests.support import images, native
from tests.support.images import Content, Link, fetched
from tests.support.node import IMAGE, Node
from tests.support.session import holds_to_1g

pytestmark = pytest.mark.containers

SYSTEM = ("systemd", "util-linux", "libpam-modules", "coreutils", "dash")


@pytest.fixture(scope="module")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where compiled clients lie."""
    return tmp_path_factory.mktemp("clients")


# Read-only


@pytest.mark.parametrize("tmpfs", ["/run", "/etc"])
def test_a_read_only_root(node: Node, tmpfs: str) -> None:
    """Nothing of ours needs a place to write in the image, nor one that a tmpfs leaves alone."""
    with node.session("1G", options=["--read-only", f"--tmpfs={tmpfs}"]) as client:
        holds_to_1g(client)


@pytest.mark.parametrize("root", [[], ["--read-only"]], ids=["writable", "read-only"])
def test_usr_as_a_read_only_volume(node: Node, root_folder: Path, root: list[str]) -> None:
    """The driver's files belong in /usr/lib: in a volume that has no place for them they lie in our own folder."""
    with node.session("1G", options=["-v", f"{root_folder}/usr:/usr:ro", *root]) as client:
        holds_to_1g(client)


def test_etc_as_a_read_only_volume(node: Node, root_folder: Path, tmp_path: Path) -> None:
    """Without a place for /etc/ld.so.preload it's refused, with what to do; that done, it works."""
    etc = tmp_path / "etc"
    shutil.copytree(root_folder / "etc", etc)
    for name in ("resolv.conf", "hosts", "hostname"):
        (etc / name).touch()  # docker's own, which would fail without us
    (etc / "ld.so.preload").unlink(missing_ok=True)  # left there by another test's container
    options = ["-v", f"{etc}:/etc:ro"]
    done = node.docker_run("1G", options=options, command=["true"])
    assert done.returncode == 125
    assert (
        f"GP311 the container leaves no place for a memory limit: {etc}/ld.so.preload is missing"
        in done.stderr
    )
    (etc / "ld.so.preload").touch()
    with node.session("1G", options=options) as client:
        holds_to_1g(client)


# The image's own preloads

OWN = "/opt/own/libown.so"


@pytest.fixture(scope="module")
def own_library(clients: Path) -> Path:
    source, library = clients / "own.c", clients / "libown.so"
    source.write_text("int own_library_is_here(void) { return 1; }\n")
    subprocess.run(["gcc", "-shared", "-nostdlib", "-o", str(library), str(source)], check=True)
    return library


@pytest.mark.parametrize("way", ["env", "file"])
def test_the_images_own_preload(node: Node, own_library: Path, way: str) -> None:
    """Both still load: in init and by `docker exec`; by the file without an environment as well."""
    files: dict[str, Content | Link] = {OWN[1:]: own_library}
    if way == "file":
        files["etc/ld.so.preload"] = f"# ours\n{OWN}\n".encode()
    env = {"LD_PRELOAD": OWN} if way == "env" else {}
    image = images.derive(node.engine, f"own-preload-{way}", IMAGE, files, env)
    wrapper = ["env", "-i"] if way == "file" else []
    with node.container("1G", image=image) as name:
        for words in (["cat", "/proc/1/maps"], [*wrapper, "cat", "/proc/self/maps"]):
            maps = node.docker("exec", name, *words).stdout
            assert OWN in maps and "/.gpuportion/libcuda.so.1" in maps, words
        with node.exec_session(name, wrapper=wrapper) as client:
            holds_to_1g(client)


STRANGE: dict[str, dict[str, Content | Link]] = {
    "dangling": {"etc/ld.so.preload": Link("/nowhere/at/all")},
    "absolute": {"etc/ld.so.preload": Link("/opt/list"), "opt/list": b""},
    "upwards": {"etc/ld.so.preload": Link("../../../../../../etc/hostname")},
}


@pytest.mark.parametrize("kind", STRANGE)
def test_a_strange_ld_so_preload(node: Node, kind: str) -> None:
    """Wherever the image's file leads, it's within the image."""
    image = images.derive(node.engine, f"strange-{kind}", IMAGE, STRANGE[kind])
    with node.session("1G", image=image) as client:
        holds_to_1g(client)


def test_an_ld_so_preload_that_is_a_folder_is_refused(node: Node) -> None:
    """Ours can't be mounted there, and what it's for would be missing; without a request it's left alone."""
    image = images.derive(node.engine, "strange-folder", IMAGE, {"etc/ld.so.preload/file": b""})
    done = node.docker_run("1G", image=image, command=["true"])
    assert done.returncode == 125
    assert "GP311" in done.stderr and "is a folder. Remove it" in done.stderr
    assert node.docker_run(None, image=image, command=["true"]).returncode == 0


def test_an_image_without_etc(node: Node, clients: Path) -> None:
    """A root with nothing in it but a program and its C library: no libcuda, no folder of ours."""
    loader = Path("/lib64/ld-linux-x86-64.so.2")
    if not loader.exists():
        pytest.skip("needs an x86-64 host: puts its loader into an image")
    files: dict[str, Content | Link] = {
        "session": images.direct_client(clients, "session"),
        "lib64/ld-linux-x86-64.so.2": loader.resolve(),
        "usr/lib/x86_64-linux-gnu/libc.so.6": Path("/lib/x86_64-linux-gnu/libc.so.6").resolve(),
        "lib/x86_64-linux-gnu": Link("../usr/lib/x86_64-linux-gnu"),
    }
    image = images.import_root(node.engine, "no-etc", None, files, folders=())
    with node.session("1G", image=image, command=["/session"]) as client:
        holds_to_1g(client)


# Another C library; older ones of this kind are in test_older_glibc.py


@pytest.fixture(scope="module")
def musl(running_node: Node, clients: Path) -> str:
    """A busybox beside musl, as Alpine is."""
    unpacked = fetched(debian.unpacked, "musl", "bookworm", "main", "musl", "musl-dev")
    shell = fetched(debian.unpacked, "busybox-static", "bookworm", "main", "busybox-static")
    files: dict[str, Content | Link] = {
        "lib/ld-musl-x86_64.so.1": unpacked / "lib/x86_64-linux-musl/libc.so",
        "bin/busybox": shell / "bin/busybox",
        "bin/sleep": Link("busybox"),
        "session": images.musl_client(clients, "session-musl", unpacked),
    }
    return images.import_root(running_node.engine, "musl", None, files)


def test_musl(node: Node, musl: str) -> None:
    """It starts and runs; NVIDIA's driver is for glibc, so a CUDA client finds no device, and is told why."""
    with node.session("1G", image=musl, command=["/session"]) as client:
        assert client.opened == "CUDA_ERROR_NO_DEVICE"
        said = client.end()
        assert "GP203" in said and "cannot be loaded from /.gpuportion/driver" in said
    with node.container("1G", image=musl) as name:
        done = node.docker("exec", name, "/session", check=False)
        assert done.returncode == 2 and "libcuda.so.1" in done.stderr


def test_a_static_program_and_nothing_else(node: Node) -> None:
    """No loader, no library, no folder: it starts."""
    probe = Path(native.built("gpuportion-container-probe", "shim"))
    image = images.import_root(node.engine, "scratch", None, {"probe": probe}, folders=())
    done = node.docker_run("1G", image=image, command=["/probe", "cat", "/etc/ld.so.preload"])
    assert (done.returncode, done.stderr) == (0, "")
    assert "/.gpuportion/libcuda.so.1" in done.stdout


# An init system

SERVICE = b"""[Unit]
DefaultDependencies=no
[Service]
Type=oneshot
ExecStart=/session
StandardInput=data
StandardInputText=alloc 600000000
StandardInputText=alloc 600000000
StandardOutput=file:/run/answers
StandardError=file:/run/errors
"""
PAM = ("auth", "account", "session")
INIT = ["/lib/systemd/systemd", "--unit=basic.target", "--log-target=console"]
OWN_RUN = ["--tmpfs=/run", "--tmpfs=/run/lock", "--tmpfs=/tmp", "--tty"]
NAMED = "/sys/fs/cgroup/systemd"
CGROUPS = [
    "--cgroupns=host",
    # systemd makes folders and links in the tmpfs of version 1: it gets one of its own around its hierarchy.
    *(
        ["--tmpfs=/sys/fs/cgroup", f"-v={NAMED}:{NAMED}"]
        if os.path.isdir(NAMED)
        else ["-v=/sys/fs/cgroup:/sys/fs/cgroup"]
    ),
]


@pytest.fixture(scope="module")
def debian12(running_node: Node, clients: Path) -> str:
    """Debian 12 with systemd, which starts a CUDA client; and with su."""
    root = fetched(debian.system, "bookworm-init", "bookworm", *SYSTEM)
    files: dict[str, Content | Link] = {
        "session": images.direct_client(clients, "session-systemd"),
        "etc/systemd/system/client.service": SERVICE,
        "etc/systemd/system/basic.target.wants/client.service": Link("../client.service"),
        "etc/passwd": b"root:x:0:0:root:/root:/bin/sh\nann:x:1000:1000::/:/bin/sh\n",
        "etc/group": b"root:x:0:\nann:x:1000:\n",
        "etc/machine-id": b"",
        **{f"etc/pam.d/common-{kind}": f"{kind} required pam_permit.so\n".encode() for kind in PAM},
    }
    return images.import_root(running_node.engine, "debian12", root, files)


def test_a_service_of_systemd_is_capped(node: Node, debian12: str) -> None:
    """init with a /run of its own starts its services with an environment that it makes itself."""
    with node.container("1G", image=debian12, options=[*OWN_RUN, *CGROUPS], command=INIT) as name:

        def answers() -> list[str]:
            return node.docker("exec", name, "cat", "/run/answers", check=False).stdout.splitlines()

        node.until(lambda: len(answers()) == 3)
        first, *results = [json.loads(line) for line in answers()]
        assert first["opened"] == "CUDA_SUCCESS"
        assert [each["result"] for each in results] == ["CUDA_SUCCESS", "CUDA_ERROR_OUT_OF_MEMORY"]
        assert "GP201" in node.docker("exec", name, "cat", "/run/errors").stdout


@pytest.mark.parametrize("words", [["ann"], ["-", "ann"]], ids=["su", "su-"])
def test_su_is_capped(node: Node, debian12: str, words: list[str]) -> None:
    """A set-uid program and a new user, with and without the environment."""
    command = ["su", *words, "-c", "/session"]
    with (
        node.container("1G", image=debian12) as name,
        node.exec_session(name, command=command) as client,
    ):
        holds_to_1g(client)


# A driver in the image

CUDA = "usr/local/cuda-12.4/compat"
OTHER = "opt/mine/driver"
THIRD = "opt/third"
LINKS: dict[str, Content | Link] = {
    "libcuda.so.1": Link("libcuda.so.550.54.15"),
    "libcuda.so": Link("libcuda.so.1"),
}
WAYS = (
    "libcuda.so.1",
    "libcuda.so",
    "/usr/local/cuda/compat/libcuda.so.1",
    f"/{CUDA}/libcuda.so.550.54.15",
    f"/{OTHER}/libcuda.so.1",
    f"/{THIRD}/libcuda.so",
)


@pytest.fixture(scope="module")
def cuda_image(running_node: Node, clients: Path) -> str:
    """As NVIDIA's images: cuda-compat behind two links, found by LD_LIBRARY_PATH and ld.so.conf.d."""
    files: dict[str, Content | Link] = {
        "session": images.client(clients, "session-opens"),
        "etc/alternatives/cuda": Link("/usr/local/cuda-12.4"),
        "usr/local/cuda": Link("/etc/alternatives/cuda"),
        "etc/ld.so.conf.d/mine.conf": f"# ours\n/{OTHER}\n".encode(),
    }
    for folder in (CUDA, OTHER, THIRD):
        files[f"{folder}/libcuda.so.550.54.15"] = images.simulated_libcuda()
        files |= {f"{folder}/{name}": link for name, link in LINKS.items()}
    env = {"LD_LIBRARY_PATH": f"/usr/local/cuda/compat:/{THIRD}"}
    return images.derive(running_node.engine, "cuda-compat", IMAGE, files, env)


@pytest.mark.parametrize("way", WAYS)
def test_a_driver_in_the_image_is_capped(node: Node, cuda_image: str, way: str) -> None:
    """By whatever name or path it's opened, it's the host's driver that serves, behind our library."""
    with node.session("1G", image=cuda_image, command=["/session", way]) as client:
        holds_to_1g(client)


@pytest.mark.parametrize("at", [f"/{CUDA}", "/usr/local/cuda"], ids=["itself", "by-links"])
def test_a_volume_over_the_images_driver_stays_clean(
    node: Node, cuda_image: str, tmp_path: Path, at: str
) -> None:
    """What the image has below a volume isn't seen, and no place is made for it there."""
    with node.session(
        "1G", image=cuda_image, command=["/session"], options=["-v", f"{tmp_path}:{at}"]
    ) as client:
        holds_to_1g(client)
    assert list(tmp_path.iterdir()) == []


# Another architecture


@pytest.fixture(scope="module")
def arm64(running_node: Node) -> str:
    """Debian 12 for arm64, with an emulator for x86-64 where this machine has one."""
    if os.uname().machine != "x86_64":
        pytest.skip("needs an x86-64 host: arm64 is the other architecture")
    root = fetched(functools.partial(debian.system, architecture="arm64"), "arm64", "bookworm", "busybox")
    qemu = shutil.which("qemu-aarch64-static")
    files: dict[str, Content | Link] = {"qemu": Path(qemu)} if qemu else {}
    return images.import_root(running_node.engine, "arm64", root, files)


def test_a_foreign_architecture_starts(node: Node, arm64: str) -> None:
    """An emulated program: its loader can't preload our libraries, says so, and goes on."""
    if shutil.which("qemu-aarch64-static") is None:
        pytest.skip("needs qemu-aarch64-static, of qemu-user-static")
    done = node.docker_run("1G", image=arm64, command=["/qemu", "/bin/busybox", "echo", "alive"])
    # qemu's guest writes its loader's complaints where it writes everything.
    assert done.returncode == 0 and done.stdout.endswith("alive\n"), done.stderr
    assert "object '/.gpuportion/libcuda.so.1' from LD_PRELOAD cannot be preloaded" in done.stderr


def test_a_foreign_architecture_without_an_emulator_fails_as_ever(node: Node, arm64: str) -> None:
    """The kernel's own words, with a request and without; nothing stays reserved."""
    if Path("/proc/sys/fs/binfmt_misc/qemu-aarch64").exists():
        pytest.skip("needs a host that doesn't emulate arm64 by itself")
    command = ["/bin/busybox", "true"]
    asked, plain = (node.docker_run(ask, image=arm64, command=command) for ask in ("1G", None))
    assert asked.returncode == plain.returncode != 0
    assert "exec format error" in asked.stderr and "exec format error" in plain.stderr
    node.until(lambda: not node.ps())
