"""Whether a process lives in a container, by its cgroups and its pid namespace."""

from __future__ import annotations

import pytest

from gpuportion.allocator.containment import Container, container_of

ID = "0123456789abcdef" * 4
OTHER = "f" * 64
POD = "pod1f3c2b1a_0d0f_4a54_9f1e_2b8f0e5d6c7a"
HOST, INNER = 4026531836, 4026532501

PATHS = [
    # (cgroup path, the container that it names)
    (f"/docker/{ID}", ("docker", ID)),
    (f"/system.slice/docker-{ID}.scope", ("docker", ID)),
    (f"/user.slice/user-1000.slice/user@1000.service/app.slice/docker-{ID}.scope", ("docker", ID)),
    (f"/docker/{ID}/init.scope", ("docker", ID)),
    (f"/docker/{OTHER}/docker/{ID}", ("docker", ID)),
    ("/docker/buildkit/k2n5h7d8", ("docker", "k2n5h7d8")),
    (f"/default/{ID}", ("container", ID)),
    (f"/system.slice/nerdctl-{ID}.scope", ("containerd", ID)),
    (f"/kubepods/burstable/{POD}/{ID}", ("kubernetes", ID)),
    (
        f"/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-{POD}.slice/cri-containerd-{ID}.scope",
        ("containerd", ID),
    ),
    (
        f"/system.slice/containerd.service/kubepods-burstable-{POD}.slice:cri-containerd:{ID}",
        ("kubernetes", ID),
    ),
    (f"/kubepods.slice/kubepods-{POD}.slice/crio-{ID}.scope/container", ("cri-o", ID)),
    (f"/kubepods/besteffort/{POD}/crio-{ID}", ("cri-o", ID)),
    (f"/machine.slice/libpod-{ID}.scope", ("podman", ID)),
    (f"/machine.slice/libpod-{ID}.scope/container", ("podman", ID)),
    (f"/libpod_parent/libpod-{ID}", ("podman", ID)),
    (f"/system.slice/web.service/libpod-payload-{ID}", ("podman", ID)),
    (f"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope", ("podman", ID)),
    ("/garden/7a4b6c", ("garden", "7a4b6c")),
    ("/system.slice/garden.service/garden/7a4b6c", ("garden", "7a4b6c")),
    ("/ecs/4d2a/9be1-77", ("ecs", "9be1-77")),
    ("/lxc/web1", ("lxc", "web1")),
    ("/lxc.payload.web1", ("lxc", "web1")),
    # services and people
    ("/", None),
    ("/system.slice/docker.service", None),
    ("/system.slice/containerd.service", None),
    ("/system.slice/nvidia-persistenced.service", None),
    ("/user.slice/user-1000.slice/session-2.scope", None),
    ("/machine.slice/machine-qemu\\x2d1\\x2dvm.scope", None),
    (f"/machine.slice/libpod-conmon-{ID}.scope", None),
    (f"/system.slice/crio-conmon-{ID}.scope", None),
    ("/docker", None),
    ("/kubepods/burstable", None),
    (f"/system.slice/x-{ID}y", None),
    ("/home/docker-notes/0123", None),
    ("", None),
]


@pytest.mark.parametrize(("path", "expected"), PATHS)
def test_engines_are_known_by_their_cgroups(path: str, expected: tuple[str, str] | None) -> None:
    """In cgroup v2 and in any hierarchy of v1; engines' own services and monitors are the host's."""
    wanted = Container(*expected) if expected else None
    for name in ("", "memory"):
        assert container_of({"cpu": "/", name: path}, HOST, {"": "/"}, HOST) == wanted


def test_a_pid_namespace_of_its_own_makes_a_container() -> None:
    """Plain runc names cgroups as it is told; what cannot be read makes none."""
    assert container_of({"": "/mine"}, INNER, {"": "/"}, HOST) == Container("namespace")
    assert container_of({"": "/mine"}, HOST, {"": "/"}, HOST) is None
    assert container_of({}, 0, {"": "/"}, HOST) is None
    assert container_of({}, INNER, {}, 0) is None


def test_a_container_with_the_hosts_pids_is_one() -> None:
    """`docker run --pid=host`: its cgroup tells it."""
    assert container_of({"": f"/docker/{ID}"}, HOST, {"": "/"}, HOST) == Container("docker", ID)


def test_the_daemons_own_container_is_none() -> None:
    """A daemon in a pod sees the other programs of it as a host's; a container started within it is one."""
    own = {"": f"/kubepods/{POD}/{ID}"}
    assert container_of(own, HOST, own, HOST) is None
    assert container_of({"": f"/kubepods/{POD}/{ID}/docker/{OTHER}"}, HOST, own, HOST) == Container(
        "docker", OTHER
    )
    assert container_of({"": f"/kubepods/{POD}/{OTHER}"}, HOST, own, HOST) == Container("kubernetes", OTHER)


def test_a_container_is_called_by_what_is_known_of_it() -> None:
    """As docker shortens ids."""
    assert Container("docker", ID).label == "container 0123456789ab (docker)"
    assert Container("namespace").label == "a pid namespace of its own"
