"""What becomes of each thing that a CDI spec may say, or leave out, in the edit of an OCI spec."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
from tests.support.gpu_specs import document, injection

from gpuportion.errors import GpuportionError
from gpuportion.shim import cdi, spec

BARE: dict[str, Any] = {"ociVersion": "1.0.2", "linux": {}}


KNOWN: dict[str, Any] = {"type": "b", "major": 7, "minor": 7}


def edited(container_edits: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A bare spec with these of a CDI spec's edits beside its own."""
    made = document()
    for key, value in container_edits.items():
        made["containerEdits"][key] = [*made["containerEdits"][key], *value]
    edits = cdi.edits([cdi.parse(made, "x")], cdi.GPU_KIND, ["1"])
    return spec.edit(copy.deepcopy(BARE), injection(edits=edits, **more))


@pytest.mark.parametrize("names", [(), *itertools.combinations(KNOWN, 1), *itertools.combinations(KNOWN, 2)])
def test_numbers_that_are_not_whole_are_the_hosts(names: tuple[str, ...]) -> None:
    """Type, major and minor are one device's: never two of them of one, and the third of another."""
    known = {name: KNOWN[name] for name in names}
    nodes = edited({"deviceNodes": [{"path": "/dev/x", "hostPath": "/dev/nvidia0", **known}]})["linux"][
        "devices"
    ]
    assert {"path": "/dev/x", "type": "c", "major": 195, "minor": 0, "fileMode": 0o666} in nodes


def test_numbers_that_the_host_lacks_are_refused_where_one_is_left_out() -> None:
    """With the path that was looked for."""
    with pytest.raises(GpuportionError, match="names the device /dev/y, and this host has none"):
        edited({"deviceNodes": [{"path": "/dev/x", "hostPath": "/dev/y", "type": "c", "major": 1}]})


MOUNTS: list[tuple[dict[str, Any], str, list[str]]] = [  # as CDI has it -> type and options
    ({}, "bind", ["ro", "nosuid", "nodev", "rbind", "rprivate"]),
    ({"options": ["ro"]}, "bind", ["ro", "rbind"]),
    ({"options": ["bind", "rw"]}, "bind", ["bind", "rw"]),
    ({"options": ["rbind"], "type": "bind"}, "bind", ["rbind"]),
    ({"options": ["ro"], "type": "bind"}, "bind", ["ro", "rbind"]),
    ({"options": ["size=1m"], "type": "tmpfs"}, "tmpfs", ["size=1m"]),
]


@pytest.mark.parametrize(("said", "kind", "options"), MOUNTS)
def test_a_mount_is_bound_unless_it_is_of_another_type(
    said: dict[str, Any], kind: str, options: list[str]
) -> None:
    """Read-only where nothing is said; else as it says, and bound all the same."""
    mounts = edited({"mounts": [{"hostPath": "/h", "containerPath": "/c", **said}]})["mounts"]
    found = [mount for mount in mounts if mount["destination"] == "/c"]
    assert found == [{"destination": "/c", "source": "/h", "type": kind, "options": options}]


def test_a_variable_of_the_cdi_spec_stands_alone() -> None:
    """In the place of the image's own, whatever is in its value."""
    made = document()
    made["containerEdits"]["env"] = ["A=x=y", "B="]
    edits = cdi.edits([cdi.parse(made, "x")], cdi.GPU_KIND, ["1"])
    before = {"process": {"env": ["A=1", "A=2=3", "B=4", "C=5"]}}
    env = spec.edit(before, injection(edits=edits))["process"]["env"]
    assert [entry for entry in env if entry[:2] in ("A=", "B=", "C=")] == ["C=5", "A=x=y", "B="]


HOOKS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {"args": ["/bin/x"], "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]}),
    ({"args": ["x", "y"], "env": ["A=1"], "timeout": 5}, {"args": ["x", "y"], "env": ["A=1"], "timeout": 5}),
    ({"timeout": 0}, {"args": ["/bin/x"], "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"], "timeout": 0}),
]


@pytest.mark.parametrize(("said", "expected"), HOOKS)
def test_a_hook_is_run_as_it_says(said: dict[str, Any], expected: dict[str, Any]) -> None:
    """Its own name is its first argument where it names none."""
    hooks = edited({"hooks": [{"hookName": "poststart", "path": "/bin/x", **said}]})["hooks"]["poststart"]
    assert hooks == [{"path": "/bin/x", **expected}]


def test_in_a_user_namespace_only_the_nodes_are_otherwise() -> None:
    """They are mounted behind all else, and may be written to."""
    mapped = {**BARE, "linux": {"namespaces": [{"type": "user"}]}}
    plain, mounted = spec.edit(copy.deepcopy(BARE), injection()), spec.edit(mapped, injection())
    count = len(plain["mounts"])
    assert mounted["mounts"][:count] == plain["mounts"]
    assert mounted["mounts"][count:] == [
        {
            "destination": node["path"],
            "source": node["path"],
            "type": "bind",
            "options": ["rw", "nosuid", "noexec", "rbind", "rprivate"],
        }
        for node in plain["linux"]["devices"]
    ]


MALFORMED: list[tuple[dict[str, Any], str]] = [
    ({"process": []}, "process of the container's config.json is not an object"),
    ({"process": {"env": "A=1"}}, "env of the container's config.json is not a list of such"),
    ({"process": {"env": [1]}}, "env of the container's config.json is not a list of such"),
    ({"mounts": {}}, "mounts of the container's config.json is not a list of such"),
    ({"mounts": ["x"]}, "mounts of the container's config.json is not a list of such"),
    ({"hooks": []}, "hooks of the container's config.json is not an object"),
    ({"hooks": {"poststop": {}}}, "poststop of the container's config.json is not a list of such"),
    ({"hooks": {"poststop": ["x"]}}, "poststop of the container's config.json is not a list of such"),
    ({"linux": "x"}, "linux of the container's config.json is not an object"),
    ({"linux": {"devices": {}}}, "devices of the container's config.json is not a list of such"),
    ({"linux": {"resources": 1}}, "resources of the container's config.json is not an object"),
    (
        {"linux": {"resources": {"devices": [None]}}},
        "devices of the container's config.json is not a list of such",
    ),
    ({"linux": {"namespaces": {}}}, "namespaces of the container's config.json is not a list of such"),
]


@pytest.mark.parametrize(("broken", "why"), MALFORMED)
def test_what_is_wrong_in_an_oci_spec_is_named(broken: dict[str, Any], why: str) -> None:
    """The part that is not what it has to be; so a container is never started half edited."""
    with pytest.raises(GpuportionError) as refusal:
        spec.edit(broken, injection())
    assert refusal.value.code == "GP304" and why in refusal.value.text
