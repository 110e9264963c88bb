"""What is NVIDIA's in a spec is found under every disguise, and nothing else is."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuportion.shim import strip

MAJORS = frozenset({195, 511})
CDI = frozenset({"/dev/dri/renderD128", "/opt/driver/extra.json"})

PROC_DEVICES = """\
Character devices:
  1 mem
195 nvidia
195 nvidia-frontend
236 nvidia-caps
511 nvidia-uvm
 10 misc

Block devices:
  8 sd
 99 nvidia-block
"""


def test_the_drivers_majors_are_read_from_proc_devices() -> None:
    """195 is fixed; the others differ from boot to boot."""
    assert strip.majors(PROC_DEVICES) == {195, 236, 511}
    assert strip.majors("Character devices:\n  1 mem\n") == {195}


NODES: dict[str, tuple[dict[str, Any], bool]] = {
    "a GPU": ({"path": "/dev/nvidia0", "type": "c", "major": 195, "minor": 0}, True),
    "its control": ({"path": "/dev/nvidiactl", "type": "c", "major": 195, "minor": 255}, True),
    "a capability": ({"path": "/dev/nvidia-caps/nvidia-cap1", "type": "c", "major": 236, "minor": 1}, True),
    "by its number alone": ({"path": "/dev/harmless", "type": "c", "major": 195, "minor": 0}, True),
    "by its name alone": ({"path": "/dev/nvidia0", "type": "c", "major": 1, "minor": 3}, True),
    "by a hidden name": ({"path": "//dev/./x/../nvidia1", "type": "c", "major": 7, "minor": 0}, True),
    "what CDI names": ({"path": "/dev/dri/renderD128", "type": "c", "major": 226, "minor": 128}, True),
    "another GPU's": ({"path": "/dev/dri/renderD129", "type": "c", "major": 226, "minor": 129}, False),
    "a disk of that number": ({"path": "/dev/sdx", "type": "b", "major": 195, "minor": 0}, False),
    "fuse": ({"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}, False),
    "no path": ({}, False),
}


@pytest.mark.parametrize("case", NODES)
def test_a_device_node_is_judged_by_path_and_number(case: str) -> None:
    """A node under any name hands over the GPU."""
    node, goes = NODES[case]
    removed = strip.Removed()
    stay, gone = strip.devices([node], MAJORS, CDI, removed)
    assert (stay == []) is goes and bool(gone) is goes and bool(removed) is goes


RULES: dict[str, tuple[dict[str, Any], bool]] = {
    "a GPU": ({"allow": True, "type": "c", "major": 195, "minor": 0, "access": "rw"}, True),
    "every GPU": ({"allow": True, "type": "c", "major": 195, "access": "rw"}, True),
    "uvm": ({"allow": True, "type": "c", "major": 511, "minor": 0, "access": "rw"}, True),
    "the node that went": ({"allow": True, "type": "c", "major": 226, "minor": 128, "access": "rw"}, True),
    "its neighbour": ({"allow": True, "type": "c", "major": 226, "minor": 129, "access": "rw"}, False),
    "null": ({"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rwm"}, False),
    "deny all": ({"allow": False, "access": "rwm"}, False),
    "a disk of that number": ({"allow": True, "type": "b", "major": 195, "minor": 0, "access": "r"}, False),
}


@pytest.mark.parametrize("case", RULES)
def test_a_cgroup_rule_goes_with_its_device(case: str) -> None:
    """But never one that every container needs, whatever number a stand-in node has borrowed."""
    rule, goes = RULES[case]
    stay = strip.rules([rule], MAJORS, {("c", 226, 128), ("c", 1, 3)}, strip.Removed())
    assert (stay == []) is goes


LIB = "/usr/lib/x86_64-linux-gnu"
GONE_MOUNTS = [
    (f"{LIB}/libcuda.so.550.54.15", f"{LIB}/libcuda.so.550.54.15"),
    ("/opt/innocent/libfoo.so", f"{LIB}/libcuda.so.550.54.15"),
    (f"{LIB}/libcuda.so.1", "/home/user/mine.so"),
    (f"{LIB}/libcudadebugger.so.1", "/x"),
    (f"{LIB}/libnvidia-ml.so.1", "/x"),
    (f"{LIB}/libnvidia-ptxjitcompiler.so.550.54.15", "/x"),
    (f"{LIB}/libGLX_nvidia.so.0", "/x"),
    ("/usr/bin/nvidia-smi", "/usr/bin/nvidia-smi"),
    ("/bin/smi", "/usr/bin/nvidia-smi"),
    ("/dev/nvidia0", "/dev/nvidia0"),
    ("/dev/innocent", "/dev/nvidia0"),
    ("/proc/driver/nvidia", "tmpfs"),
    ("/run/nvidia-persistenced/socket", "/x"),
    ("/var/run/nvidia-container-devices/0", "/dev/null"),
    ("/tmp/nvidia-mps", "/tmp/nvidia-mps"),
    ("/opt/driver/extra.json", "/x"),
    ("/.gpuportion", "/home/user"),
    ("/.gpuportion/policy", "/home/user/policy"),
    ("//x/../.gpuportion//policy/", "/home/user/policy"),
    ("/etc/ld.so.preload", "/home/user/preload"),
]
KEPT_MOUNTS = [
    ("/proc", "proc"),
    ("/dev", "tmpfs"),
    ("/data", "/srv/nvidia"),
    ("/usr/local/cuda/lib64/libcudart.so.12", "/opt/libcudart.so.12"),
    ("/models/nvidia-smi.txt", "/models/nvidia-smi.txt"),
    ("/etc", "/srv/etc"),
    ("/.gpuportionist", "/srv/x"),
    ("/run/secrets", "/srv/secrets"),
]


@pytest.mark.parametrize(("target", "source"), GONE_MOUNTS)
def test_a_mount_of_the_driver_or_over_ours_goes(target: str, source: str) -> None:
    """By its target or its source, under any spelling."""
    removed = strip.Removed()
    assert strip.mounts([{"destination": target, "source": source}], CDI, removed) == []
    assert len(removed) == 1 and removed[0].startswith("mount /")


@pytest.mark.parametrize(("target", "source"), KEPT_MOUNTS)
def test_other_mounts_stay(target: str, source: str) -> None:
    """The toolkit's own libraries too: they are not the driver's."""
    mount = {"destination": target, "source": source}
    assert strip.mounts([mount], CDI, strip.Removed()) == [mount]


def test_nvidias_hooks_go_and_others_stay() -> None:
    """`docker --gpus` brings a prestart hook, CDI createContainer ones."""
    other = {"path": "/proc/1/exe", "args": ["libnetwork-setkey"]}
    given = {
        "prestart": [{"path": "/usr/bin/nvidia-container-runtime-hook", "args": ["x", "prestart"]}, other],
        "createContainer": [{"path": "/usr/bin/nvidia-cdi-hook"}, {"path": "/usr/local/bin/nvidia-ctk"}],
        "poststop": [{"path": "/opt/bin/gpuportion-hook"}],
        "poststart": None,
    }
    removed = strip.Removed()
    stay = strip.hooks(given, frozenset({"gpuportion-hook"}), removed)
    assert stay == {"prestart": [other], "createContainer": [], "poststop": [], "poststart": []}
    assert "prestart hook nvidia-container-runtime-hook" in removed


def test_the_environment_loses_what_would_widen_a_grant() -> None:
    """And each name stays once, with its last value."""
    gone = [
        *["NVIDIA_VISIBLE_DEVICES=all", "NVIDIA_MIG_CONFIG_DEVICES=all", "NVIDIA_MIG_MONITOR_DEVICES=all"],
        *["NVIDIA_IMEX_CHANNELS=0", "CUDA_MPS_PIPE_DIRECTORY=/x", "GPUPORTION_RUN_DIR=/x"],
    ]
    kept = [
        "A=1",
        "NVIDIA_DRIVER_CAPABILITIES=all",
        "CUDA_VISIBLE_DEVICES=0",
        "NVIDIA_REQUIRE_CUDA=x",
        "bare",
        "A=2",
    ]
    removed = strip.Removed()
    stay = strip.env([*gone, *kept], removed)
    assert list(stay.values()) == ["A=2", *kept[1:-1]]
    assert removed == [f"environment {entry.partition('=')[0]}" for entry in gone]


def test_what_went_is_told_with_its_numbers() -> None:
    """A rule that lets in a node that went is found by them; a number that is left out is 0."""
    removed = strip.Removed()
    nodes: list[dict[str, Any]] = [
        {"path": "/dev/a", "type": "u", "major": 195, "minor": 7},
        {"path": "/dev/nvidia1", "type": "b", "major": 8, "minor": 3},
        {"path": "/dev/nvidia2"},
        {"type": "c", "major": 195, "minor": 1},
        {"path": 5, "type": "c", "major": 195, "minor": 2},
        {"path": 6, "type": "c", "major": 1, "minor": 3},
    ]
    stay, gone = strip.devices(nodes, MAJORS, CDI, removed)
    assert stay == nodes[5:]
    assert gone == {("u", 195, 7), ("b", 8, 3), ("None", 0, 0), ("c", 195, 1), ("c", 195, 2)}
    assert removed == ["device /dev/a", "device /dev/nvidia1", "device /dev/nvidia2", "device ", "device "]


def test_a_rule_that_went_is_told_as_the_kernel_writes_it() -> None:
    """Every minor is a star."""
    removed = strip.Removed()
    rules = [{"type": "c", "major": 195}, {"type": "c", "major": 511, "minor": 0}, {"type": "c", "major": 1}]
    assert strip.rules(rules, MAJORS, set(), removed) == rules[2:]
    assert removed == ["device rule c 195:*", "device rule c 511:0"]


def test_a_variable_is_known_by_its_name_whatever_its_value_is() -> None:
    """The first = ends the name."""
    removed = strip.Removed()
    assert strip.env(["NVIDIA_VISIBLE_DEVICES=a=b", "A=b=c"], removed) == {"A": "A=b=c"}
    assert removed == ["environment NVIDIA_VISIBLE_DEVICES"]


def test_a_path_begins_at_the_containers_root() -> None:
    """However many slashes it begins with, none among them; a longer name is another one."""
    removed = strip.Removed()
    targets = [
        "/.gpuportion/x",
        "//.gpuportion",
        ".gpuportion/x",
        "/a/../.gpuportion",
        "/X/.gpuportion/x",
        "/X.gpuportion",
    ]
    given = [{"destination": target, "source": "tmpfs"} for target in targets]
    assert strip.mounts(given, CDI, removed) == given[4:]
    node = {"path": "dev/nvidia0", "type": "c", "major": 1, "minor": 3}
    assert strip.devices([node], MAJORS, CDI, removed) == ([], {("c", 1, 3)})


PART = st.sampled_from(
    [
        *[
            "/",
            "//",
            ".",
            "..",
            "\n",
            "usr",
            "bin",
            "dev",
            "run",
            "tmp",
            "proc",
            "driver",
            "firmware",
            "lib",
            "opt",
            "etc",
        ],
        *[
            "nvidia",
            "nvidia-smi",
            "nvidia0",
            "nvidia-mps",
            "libcuda.so.1",
            "libnvcuvid.so",
            "libnvoptix.so.1",
        ],
        *["libEGL_nvidia.so.0", "libcudadebugger.so.1", "extra.json", ".gpuportion", "ld.so.preload", "x"],
    ]
)
PATH = st.lists(PART, max_size=8).map("".join) | st.lists(PART, max_size=8).map("/".join).map("/{}".format)
VALUE = PATH | st.sampled_from([None, 7, ["/dev/nvidia0"]])


@given(st.lists(VALUE, max_size=4))
def test_many_paths_are_made_plain_as_each_is(values: list[object]) -> None:
    """Whatever stands beside it: a relative one, or one of two lines."""
    each = [strip.plain_path(value) if isinstance(value, str) and value else "" for value in values]
    assert strip.plain_paths(values) == each


def test_paths_that_are_plain_are_not_made_anew() -> None:
    """One look at all of them is enough; beside another one each is looked at."""
    plain = ["/".join(["", *parts]) for parts in (["proc"], ["dev", "pts"], ["a", "b.c", "d"])]
    assert all(found is given for found, given in zip(strip.plain_paths(plain), plain, strict=True))
    assert strip.plain_paths([*plain, "/x/"]) == [*plain, "/x"]


@given(st.lists(st.tuples(VALUE, VALUE), max_size=4))
def test_a_mount_is_judged_alike_in_any_company(pairs: list[tuple[object, object]]) -> None:
    """What is beside it may have it looked at more closely, never otherwise."""
    mounts = [{"destination": target, "source": source} for target, source in pairs]
    closer = {"destination": "/dev/nvidia9", "source": "/x"}
    alone = [one for one in mounts if strip.mounts([one], CDI, strip.Removed())]
    assert strip.mounts(mounts, CDI, strip.Removed()) == alone
    assert strip.mounts([*mounts, closer], CDI, strip.Removed()) == alone
