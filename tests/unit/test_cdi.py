"""CDI documents -> edits: what is understood, what is refused, and which spec wins."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.gpu_specs import LIB, UUID, document

from gpuportion.errors import GpuportionError
from gpuportion.shim import cdi

BROKEN: dict[str, tuple[list[str | int], object, str]] = {
    "no version": (["cdiVersion"], None, "broken: the file.cdiVersion is missing"),
    "a version to come": (["cdiVersion"], "2.0.0", "cdiVersion is 2.0.0; gpuportion knows 0.3.0 to 1.1.0"),
    "a version without quotes": (["cdiVersion"], 0.5, "broken: the file.cdiVersion is not a text"),
    "no kind": (["kind"], None, "broken: the file.kind is missing"),
    "half a kind": (["kind"], "nvidia.com", "kind is not vendor/class"),
    "an unknown field": (["colour"], "red", "the file.colour is not a field that gpuportion knows"),
    "devices of no list": (["devices"], {}, "the file.devices is not a list"),
    "a device of no object": (["devices", 0], "0", "the file.devices[0] is not an object"),
    "a number as a name": (
        ["devices", 0, "name"],
        0,
        "the file.devices[0].name is not a device name (YAML needs quotes around a number)",
    ),
    "a name twice": (["devices", 1, "name"], "0", "devices has a name twice"),
    "an unknown edit": (["containerEdits", "netDevices"], [], "containerEdits.netDevices is not a field"),
    "a relative node": (
        ["containerEdits", "deviceNodes", 0, "path"],
        "dev/nvidiactl",
        "containerEdits.deviceNodes[0].path is not an absolute path",
    ),
    "a zero byte in a path": (
        ["containerEdits", "deviceNodes", 0, "path"],
        "/dev/nvidiactl\0",
        "containerEdits.deviceNodes[0].path has a zero byte",
    ),
    "a bool as a number": (
        ["containerEdits", "deviceNodes", 0, "major"],
        True,
        "containerEdits.deviceNodes[0].major is not a whole number",
    ),
    "an odd type": (
        ["containerEdits", "deviceNodes", 0, "type"],
        "x",
        "containerEdits.deviceNodes[0] has a type or permissions that no device has",
    ),
    "a type of no text": (
        ["containerEdits", "deviceNodes", 0, "type"],
        5,
        "containerEdits.deviceNodes[0].type is not a text",
    ),
    "permissions of no text": (
        ["containerEdits", "deviceNodes", 0, "permissions"],
        5,
        "containerEdits.deviceNodes[0].permissions is not a text",
    ),
    "odd permissions": (
        ["containerEdits", "deviceNodes", 0, "permissions"],
        "rx",
        "has a type or permissions",
    ),
    "a node of no path": (
        ["containerEdits", "deviceNodes", 0],
        {},
        "containerEdits.deviceNodes[0].path is missing",
    ),
    "a relative node of the host": (
        ["containerEdits", "deviceNodes", 0, "hostPath"],
        "dev/x",
        "containerEdits.deviceNodes[0].hostPath is not an absolute path: dev/x",
    ),
    "an unknown field of a node": (
        ["containerEdits", "deviceNodes", 0, "colour"],
        1,
        "containerEdits.deviceNodes[0].colour is not a field that gpuportion knows",
    ),
    "no node": (["containerEdits", "deviceNodes", 1], "x", "containerEdits.deviceNodes[1] is not an object"),
    "a relative source": (
        ["containerEdits", "mounts", 0, "hostPath"],
        "../x",
        "containerEdits.mounts[0].hostPath is not an absolute path: ../x",
    ),
    "an unknown field of a mount": (
        ["containerEdits", "mounts", 1, "colour"],
        1,
        "containerEdits.mounts[1].colour is not a field that gpuportion knows",
    ),
    "options of no list": (
        ["containerEdits", "mounts", 0, "options"],
        "ro",
        "containerEdits.mounts[0].options is not a list",
    ),
    "a zero byte in an option": (
        ["containerEdits", "mounts", 0, "options"],
        ["r\0o"],
        "containerEdits.mounts[0].options is not a list of texts",
    ),
    "a mount of an odd type": (
        ["containerEdits", "mounts", 0, "type"],
        4,
        "containerEdits.mounts[0].type is not a text",
    ),
    "an unknown field of a hook": (
        ["containerEdits", "hooks", 0, "colour"],
        1,
        "containerEdits.hooks[0].colour is not a field that gpuportion knows",
    ),
    "a hook of no stage": (
        ["containerEdits", "hooks", 0, "hookName"],
        None,
        "containerEdits.hooks[0].hookName is missing",
    ),
    "env of a hook": (
        ["containerEdits", "hooks", 0, "env"],
        [1],
        "containerEdits.hooks[0].env is not a list of texts",
    ),
    "args of a hook": (
        ["containerEdits", "hooks", 1, "args"],
        "x",
        "containerEdits.hooks[1].args is not a list",
    ),
    "a timeout in words": (
        ["containerEdits", "hooks", 0, "timeout"],
        "5",
        "containerEdits.hooks[0].timeout is not a whole number",
    ),
    "a group below zero": (
        ["containerEdits", "additionalGIDs"],
        [44, -1],
        "containerEdits.additionalGIDs is not a list of group ids",
    ),
    "groups of no list": (
        ["containerEdits", "additionalGids"],
        44,
        "containerEdits.additionalGids is not a list",
    ),
    "a device's own edits": (
        ["devices", 0, "containerEdits", "env"],
        ["A"],
        "the file.devices[0].containerEdits.env has an entry without =",
    ),
    "no target": (
        ["containerEdits", "mounts", 0, "containerPath"],
        None,
        "mounts[0].containerPath is missing",
    ),
    "an odd stage": (
        ["containerEdits", "hooks", 0, "hookName"],
        "later",
        "containerEdits.hooks[0].hookName is not a stage of a container: later",
    ),
    "a relative hook": (
        ["containerEdits", "hooks", 0, "path"],
        "nvidia-ctk",
        "containerEdits.hooks[0].path is not an absolute path: nvidia-ctk",
    ),
    "numbers as env": (["containerEdits", "env"], [1], "containerEdits.env is not a list of texts"),
    "env without =": (["containerEdits", "env"], ["A"], "containerEdits.env has an entry without ="),
    "a group of no number": (["containerEdits", "additionalGids"], ["video"], "is not a list of group ids"),
}
BROKEN |= {
    f"{name}: {value!r}": (
        ["containerEdits", "deviceNodes", 0, name],
        value,
        f"containerEdits.deviceNodes[0].{name} is not a whole number from 0",
    )
    for name in ("major", "minor", "fileMode", "uid", "gid")
    for value in ("5", -1, 1.5)
}


def changed(path: list[str | int], value: object) -> dict[str, Any]:
    made: Any = document()
    at = made
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = value
    return dict(made)


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_spec_is_refused_with_file_and_field(case: str) -> None:
    """A spec is never used in part: its message says where to mend it."""
    path, value, sentence = BROKEN[case]
    with pytest.raises(GpuportionError) as refusal:
        cdi.parse(changed(path, value), "/etc/cdi/nvidia.yaml")
    assert refusal.value.code == "GP302"
    assert "the CDI spec /etc/cdi/nvidia.yaml is broken: " in refusal.value.text
    assert sentence in refusal.value.text


@pytest.mark.parametrize("document", [None, [], "text", 3, {1: 2}])
def test_what_is_no_object_is_refused(document: object) -> None:
    """YAML can be anything at its top."""
    with pytest.raises(GpuportionError, match="the CDI spec x is broken"):
        cdi.parse(document, "x")


@pytest.mark.parametrize("version", ["0.3.0", "0.5.0", "0.8.0", "1.0.0", "1.1.0", "v0.6.0"])
def test_every_published_version_is_understood(version: str) -> None:
    """0.3 to 1.1; what a newer one adds is refused as an unknown field anyway."""
    assert cdi.parse(changed(["cdiVersion"], version), "x").kind == cdi.GPU_KIND


@pytest.mark.parametrize("kind", ["nvidia.com/gpu", "Vendor.COM/Gpu_2", "a/B", "v-1.x/c.d"])
def test_a_kind_is_a_vendor_and_a_class(kind: str) -> None:
    """Letters of either case; CDI asks for no more than that each begins with one."""
    assert cdi.parse(changed(["kind"], kind), "x").kind == kind


@pytest.mark.parametrize("kind", ["a", "a/", "/a", "1a/b", "a/1b", "a/b/c", "a b/c", "a/b "])
def test_what_is_no_vendor_and_class_is_no_kind(kind: str) -> None:
    """The sentence says it back."""
    with pytest.raises(GpuportionError, match=f"kind is not vendor/class: {kind}"):
        cdi.parse(changed(["kind"], kind), "x")


@pytest.mark.parametrize("name", ["0", UUID])
def test_a_device_is_found_by_index_or_uuid(name: str) -> None:
    """The spec's own edits come first, then the device's."""
    got = cdi.edits([cdi.parse(document(), "x")], cdi.GPU_KIND, [name])
    paths = [node.path for node in got.device_nodes]
    assert paths == ["/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia0", "/dev/dri/renderD128"]
    assert got.device_nodes[2].host_path == "/dev/nvidia0"
    assert [hook.args[1] for hook in got.hooks] == ["create-symlinks", "update-ldcache"]


def test_a_spec_without_devices_has_the_driver_all_the_same() -> None:
    """Of a node whose GPUs are all in MIG mode and have no instance; no device is found in it."""
    empty = cdi.parse({**document(), "devices": []}, "empty.yaml")
    assert cdi.common([empty], cdi.GPU_KIND) is empty
    with pytest.raises(GpuportionError, match="no CDI spec has the device"):
        cdi.edits([empty], cdi.GPU_KIND, ["0"])


def test_the_drivers_files_come_from_the_spec_of_the_highest_priority() -> None:
    """One that has none is passed over; two that differ cannot both be meant."""
    low = cdi.parse(document(), "/etc/cdi/nvidia.yaml", 0)
    bare = cdi.parse({**document(), "containerEdits": {}}, "/var/run/cdi/bare.yaml", 2)
    high = cdi.parse({**document(), "devices": []}, "/var/run/cdi/nvidia.yaml", 1)
    assert cdi.common([low, bare, high], cdi.GPU_KIND) is high
    twin = cdi.parse(document(), "/var/run/cdi/twin.yaml", 1)
    assert cdi.common([high, twin], cdi.GPU_KIND) is high
    other = document()
    other["containerEdits"]["env"] = ["OTHER=1"]
    differ = (
        "nvidia.yaml and /var/run/cdi/twin.yaml have the driver's files for nvidia.com/gpu, and they differ"
    )
    with pytest.raises(GpuportionError, match=differ):
        cdi.common([high, cdi.parse(other, "/var/run/cdi/twin.yaml", 1)], cdi.GPU_KIND)
    with pytest.raises(GpuportionError, match="mounts the driver's libcuda"):
        cdi.common([bare], cdi.GPU_KIND)


def test_two_devices_share_what_is_common() -> None:
    """Each node, mount, hook and group once, however many devices ask for it."""
    got = cdi.edits([cdi.parse(document(), "x")], cdi.GPU_KIND, ["0", "1", "all"])
    assert len(got.device_nodes) == len({node.path for node in got.device_nodes}) == 5
    assert len(got.mounts) == 5 and len(got.hooks) == 2
    one, other = (cdi.ContainerEdits(env=(f"A={gid}",), gids=(44, gid)) for gid in (1, 2))
    assert one.plus(other) == cdi.ContainerEdits(env=("A=1", "A=2"), gids=(44, 1, 2))


def test_the_folder_of_higher_priority_wins() -> None:
    """As in the reference implementation: /var/run/cdi goes before /etc/cdi, device by device."""
    newer = changed(["containerEdits", "env"], ["FROM=run"])
    newer["devices"] = newer["devices"][:1]
    specs = [cdi.parse(document(), "etc", 0), cdi.parse(newer, "run", 1)]
    assert cdi.edits(specs, cdi.GPU_KIND, ["0"]).env == ("FROM=run",)
    assert "FROM=run" not in cdi.edits(specs, cdi.GPU_KIND, ["1"]).env


def test_two_specs_of_one_folder_contradict() -> None:
    """Which of them holds can't be known."""
    specs = [cdi.parse(document(), "/etc/cdi/a.yaml"), cdi.parse(document(), "/etc/cdi/b.json")]
    with pytest.raises(GpuportionError, match=r"/etc/cdi/a.yaml and /etc/cdi/b.json both define .*=0"):
        cdi.edits(specs, cdi.GPU_KIND, ["0"])


def test_an_unknown_device_is_refused_with_the_known_ones() -> None:
    """The daemon knows a GPU that the spec does not: the spec is old."""
    with pytest.raises(
        GpuportionError, match=r"no CDI spec has the device nvidia.com/gpu=7 \(known: 0 1 GPU-"
    ):
        cdi.edits([cdi.parse(document(), "x")], cdi.GPU_KIND, ["7"])


def test_the_uuid_goes_before_the_index() -> None:
    """An index may be another GPU's by now; a UUID can't."""
    specs = [cdi.parse(document(), "x")]
    assert cdi.name_of(specs, cdi.GPU_KIND, index=0, uuid=UUID) == UUID
    assert cdi.name_of(specs, cdi.GPU_KIND, index=1, uuid="GPU-other") == "1"


@pytest.mark.parametrize(
    ("kind", "name", "known"),
    [
        (cdi.GPU_KIND, "0", True),
        (cdi.GPU_KIND, UUID, True),
        (cdi.GPU_KIND, "9", False),
        ("other/kind", "0", False),
    ],
)
def test_a_device_is_known_by_a_spec_of_its_kind(kind: str, name: str, known: bool) -> None:
    """Whichever of several has it."""
    empty = cdi.parse({**document(), "devices": []}, "empty.yaml")
    other = cdi.parse({**document(), "kind": "some/other"}, "other.yaml")
    assert cdi.is_known([empty, cdi.parse(document(), "x"), other], kind, name) is known
    assert not cdi.is_known([empty, other], cdi.GPU_KIND, name)


def test_the_real_driver_is_found_among_the_mounts() -> None:
    """Also where a 32-bit copy comes before it."""
    made = document()
    old = "/usr/lib/i386-linux-gnu/libcuda.so.550.54.15"
    made["containerEdits"]["mounts"].insert(0, {"hostPath": old, "containerPath": old})
    got = cdi.edits([cdi.parse(made, "x")], cdi.GPU_KIND, ["0"])
    assert cdi.driver_paths(got) == (f"{LIB}/libcuda.so.550.54.15", f"{LIB}/libnvidia-ml.so.550.54.15")


def test_a_spec_without_a_driver_says_how_to_make_it_anew() -> None:
    """libcuda and NVML are both needed to hold a limit."""
    made = document()
    for name in ("libnvidia-ml.so", "libcuda.so"):
        mounts = made["containerEdits"]["mounts"]
        made["containerEdits"]["mounts"] = [mount for mount in mounts if f"/{name}." not in mount["hostPath"]]
        with pytest.raises(GpuportionError) as refusal:
            cdi.driver_paths(cdi.edits([cdi.parse(made, "x")], cdi.GPU_KIND, ["0"]))
        assert f"mounts no {name}. Make it anew: nvidia-ctk cdi generate" in refusal.value.text


def test_targets_are_those_of_every_device() -> None:
    """What another GPU's edits would put in is known too, so that it can be taken out."""
    assert {"/dev/nvidia1", "/dev/dri/renderD128", f"{LIB}/libcuda.so.550.54.15"} <= cdi.targets(
        [cdi.parse(document(), "x")], cdi.GPU_KIND
    )


def test_every_field_is_read() -> None:
    """And what is left out, or empty, has the value that CDI gives it."""
    given = {
        "env": ["A=1", "EMPTY=", "B=2=3"],
        "deviceNodes": [
            {
                "path": "/dev/x/../a",
                "hostPath": "/dev/b",
                "type": "c",
                "major": 195,
                "minor": 3,
                "fileMode": 438,
                "permissions": "rw",
                "uid": 5,
                "gid": 6,
            },
            {"path": "/dev/c", "type": "", "permissions": ""},
            {"path": "/dev/d", "type": "b", "permissions": "none"},
            {"path": "/dev/e", "type": "u", "major": 0, "minor": 0},
        ],
        "mounts": [
            {"hostPath": "/h", "containerPath": "/c", "options": ["ro", "nosuid"], "type": "bind"},
            {"hostPath": "/i", "containerPath": "/d", "type": ""},
        ],
        "hooks": [
            {"hookName": "poststop", "path": "/bin/x", "args": ["x", "y"], "env": ["B=2"], "timeout": 5},
            {"hookName": "prestart", "path": "/bin/y"},
        ],
        "additionalGids": [0, 44],
        "additionalGIDs": [27],
    }
    read = cdi.parse(changed(["containerEdits"], given), "/etc/cdi/x", 3)
    assert (read.source, read.priority, cdi.parse(document(), "x").priority) == ("/etc/cdi/x", 3, 0)
    assert read.edits == cdi.ContainerEdits(
        env=("A=1", "EMPTY=", "B=2=3"),
        device_nodes=(
            cdi.DeviceNode("/dev/a", "/dev/b", "c", 195, 3, 438, "rw", 5, 6),
            cdi.DeviceNode("/dev/c", "/dev/c"),
            cdi.DeviceNode("/dev/d", "/dev/d", "b", permissions="none"),
            cdi.DeviceNode("/dev/e", "/dev/e", "u", 0, 0),
        ),
        mounts=(cdi.Mount("/h", "/c", ("ro", "nosuid"), "bind"), cdi.Mount("/i", "/d")),
        hooks=(
            cdi.Hook("poststop", "/bin/x", ("x", "y"), ("B=2",), 5),
            cdi.Hook("prestart", "/bin/y"),
        ),
        gids=(44, 27),
    )


def test_no_device_is_known_of_no_spec() -> None:
    """The sentence says so."""
    with pytest.raises(GpuportionError, match=r"nvidia.com/gpu=0 \(known: none\)"):
        cdi.edits([], cdi.GPU_KIND, ["0"])
