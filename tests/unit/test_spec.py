"""The edit of an OCI spec: what goes, what comes, in which order, and that the rest is left alone."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.gpu_specs import FILES, LIB, document, injection

from gpuportion.errors import GpuportionError
from gpuportion.shim import cdi, spec, strip

TEXT = (Path(__file__).parent / "docker-config.json").read_text()
"""What docker 20.10 hands a runtime for `docker run -v ... --device /dev/fuse -e ...`."""


def docker() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(TEXT)
    return loaded


def with_gpus() -> dict[str, Any]:
    """The same after `--gpus all`, a CDI device and a default NVIDIA runtime have all been at it."""
    made = docker()
    made["process"]["env"] += ["NVIDIA_VISIBLE_DEVICES=all", "CUDA_MPS_PIPE_DIRECTORY=/tmp/nvidia-mps"]
    hook = {
        "path": "/usr/bin/nvidia-container-runtime-hook",
        "args": ["nvidia-container-runtime-hook", "prestart"],
    }
    made["hooks"]["prestart"].append(hook)
    made["hooks"]["createContainer"] = [
        {"path": "/usr/bin/nvidia-cdi-hook", "args": ["nvidia-cdi-hook", "chmod"]}
    ]
    for minor, name in enumerate(["nvidia0", "nvidia1"]):
        numbers = {"type": "c", "major": 195, "minor": minor}
        made["linux"]["devices"].append({"path": f"/dev/{name}", **numbers, "fileMode": 438})
        made["linux"]["resources"]["devices"].append({"allow": True, **numbers, "access": "rw"})
    made["mounts"] += [
        {"destination": path, "source": path, "type": "bind", "options": ["ro"]} for path in FILES
    ]
    return made


def targets(edited: dict[str, Any]) -> list[str]:
    return [mount["destination"] for mount in edited["mounts"]]


def variables(edited: dict[str, Any]) -> dict[str, str]:
    return dict(entry.split("=", 1) for entry in edited["process"]["env"])


def test_in_a_user_namespace_device_nodes_are_mounted() -> None:
    """None can be made there; from where they lie on the host, with the same rules."""
    plain = spec.edit({"linux": {"namespaces": [{"type": "pid"}]}}, injection())
    mapped = spec.edit({"linux": {"namespaces": [{"type": "pid"}, {"type": "user"}]}}, injection())
    nodes = {node["path"] for node in plain["linux"]["devices"]}
    mounted = {mount["destination"]: mount for mount in mapped["mounts"] if mount["destination"] in nodes}
    assert mounted.keys() == nodes and mapped["linux"]["devices"] == []
    assert all(mount["source"] == place and "rw" in mount["options"] for place, mount in mounted.items())
    assert mapped["linux"]["resources"] == plain["linux"]["resources"]


def test_a_plain_spec_gets_the_grant_and_keeps_the_rest() -> None:
    """The whole edit of a real docker config.json, part by part."""
    before = docker()
    after = spec.edit(before, injection())
    same = [key for key in before if key not in ("process", "mounts", "hooks", "linux")]
    assert {key: after[key] for key in same} == {key: before[key] for key in same}
    assert {**after["process"], "env": None} == {**before["process"], "env": None}
    assert after["mounts"][: len(before["mounts"])] == before["mounts"]
    assert after["hooks"]["prestart"] == before["hooks"]["prestart"]
    untouched = {"devices": None, "resources": None}
    assert {**after["linux"], **untouched} == {**before["linux"], **untouched}


def test_our_mounts_come_last_parents_first() -> None:
    """The driver's, then our folder, then what lies in it; every libcuda and NVML is ours."""
    after = spec.edit(docker(), injection())
    ours = after["mounts"][len(docker()["mounts"]) :]
    assert [(mount["destination"], mount["source"]) for mount in ours] == [
        (f"{LIB}/libcuda.so.550.54.15", "/opt/gpuportion/lib/libcap_mem.so"),
        (f"{LIB}/libnvidia-ml.so.550.54.15", "/opt/gpuportion/lib/libcap_nvml.so"),
        (f"{LIB}/libnvidia-ptxjitcompiler.so.550.54.15", f"{LIB}/libnvidia-ptxjitcompiler.so.550.54.15"),
        ("/usr/bin/nvidia-smi", "/usr/bin/nvidia-smi"),
        ("/run/nvidia-persistenced/socket", "/run/nvidia-persistenced/socket"),
        ("/.gpuportion", "tmpfs"),
        ("/.gpuportion/libcuda.so.1", "/opt/gpuportion/lib/libcap_mem.so"),
        ("/.gpuportion/libnvidia-ml.so.1", "/opt/gpuportion/lib/libcap_nvml.so"),
        ("/.gpuportion/libcuda.so", "/opt/gpuportion/lib/libcap_alias.so"),
        ("/.gpuportion/driver/libcuda.so.1", f"{LIB}/libcuda.so.550.54.15"),
        ("/.gpuportion/driver/libnvidia-ml.so.1", f"{LIB}/libnvidia-ml.so.550.54.15"),
        ("/.gpuportion/policy", "/run/gpuportion/grants/00112233445566778899aabbccddeeff/policy"),
        ("/etc/ld.so.preload", "/run/gpuportion/grants/00112233445566778899aabbccddeeff/ld.so.preload"),
        ("/.gpuportion/ledger", "/run/gpuportion/grants/00112233445566778899aabbccddeeff/ledger/ledger"),
    ]
    for mount in ours:
        first = "rw" if mount["destination"].endswith("/ledger") else "ro"
        assert mount["options"][:3] == [first, "nosuid", "nodev"]
        assert mount["type"] == "tmpfs" or mount["options"][-2:] == ["rbind", "rprivate"]


def test_a_newer_driver_of_the_image_is_not_put_first() -> None:
    """The host's serves; it must not find that one's compilers."""
    given = injection()
    compat = cdi.Hook(
        "createContainer", "/usr/bin/nvidia-cdi-hook", ("nvidia-cdi-hook", "enable-cuda-compat", "-v")
    )
    edits = cdi.ContainerEdits(hooks=(compat,)).plus(given.driver.edits)
    after = spec.edit(with_gpus(), injection(edits=edits))
    words = [hook["args"][1] for hook in after["hooks"]["createContainer"]]
    assert words[-2:] == ["create-symlinks", "update-ldcache"]


def test_the_environment_names_our_libraries_and_no_gpu() -> None:
    """The image's own preload stays behind ours; NVIDIA's runtime finds nothing to do."""
    got = variables(spec.edit(with_gpus(), injection()))
    assert got["LD_PRELOAD"] == (
        "/.gpuportion/libcuda.so.1:/.gpuportion/libnvidia-ml.so.1:/.gpuportion/libcuda.so:/usr/lib/libjemalloc.so.2"
    )
    assert got["NVIDIA_VISIBLE_DEVICES"] == "void"
    assert got["NVIDIA_CTK_LIBCUDA_DIR"] == LIB
    assert got["GPU_MEMORY_LIMIT"] == "4G" and "CUDA_MPS_PIPE_DIRECTORY" not in got


@pytest.mark.parametrize(
    ("env", "own"),
    [([], ""), (["LD_PRELOAD="], ""), (["LD_PRELOAD=/a=b.so"], ":/a=b.so"), (["LD_PRELOADS=/x.so"], "")],
)
def test_the_images_own_preload_is_behind_ours(env: list[str], own: str) -> None:
    """Whole, whatever it is called."""
    got = variables(spec.edit({"process": {"env": env}}, injection()))["LD_PRELOAD"]
    assert got == f"/.gpuportion/libcuda.so.1:/.gpuportion/libnvidia-ml.so.1:/.gpuportion/libcuda.so{own}"


def test_only_the_granted_gpu_is_let_in() -> None:
    """Its nodes and rules come from CDI and the host; those of the others go."""
    after = spec.edit(with_gpus(), injection())
    nodes = {node["path"]: node for node in after["linux"]["devices"]}
    assert list(nodes) == [
        "/dev/fuse",
        "/dev/nvidiactl",
        "/dev/nvidia-uvm",
        "/dev/nvidia0",
        "/dev/dri/renderD128",
    ]
    assert nodes["/dev/nvidia0"] == {
        "path": "/dev/nvidia0",
        "type": "c",
        "major": 195,
        "minor": 0,
        "fileMode": 0o666,
    }
    rules = after["linux"]["resources"]["devices"]
    given = docker()["linux"]["resources"]["devices"]
    assert rules[: len(given)] == given, "the default deny and the rest stay, and stay first"
    assert [
        (rule["allow"], rule["major"], rule["minor"], rule["access"]) for rule in rules[len(given) :]
    ] == [
        (True, 195, 255, "rwm"),
        (True, 511, 0, "rwm"),
        (True, 195, 0, "rwm"),
        (True, 226, 128, "rwm"),
    ]


def test_a_rule_beside_ours_stays_and_one_like_ours_is_there_once() -> None:
    """Another device of the same major number is another device."""
    ours = {"allow": True, "type": "c", "major": 226, "minor": 128, "access": "rwm"}
    other = {**ours, "minor": 129}
    before = {"linux": {"resources": {"devices": [ours, other]}}}
    rules = spec.edit(before, injection())["linux"]["resources"]["devices"]
    assert rules[0] == other and rules[-1] == ours and rules.count(ours) == rules.count(other) == 1


def test_our_hooks_come_first_and_cdis_inherit_nothing() -> None:
    """NVIDIA's own go, those of the CDI spec come, with an environment in any case."""
    hooks = spec.edit(with_gpus(), injection())["hooks"]
    assert [hook["args"][1] for hook in hooks["createRuntime"]] == ["confirm"]
    assert [hook["args"][0] for hook in hooks["prestart"]] == ["libnetwork-setkey"]
    assert [hook["args"][1] for hook in hooks["createContainer"]] == ["create-symlinks", "update-ldcache"]
    assert [hook["env"] for hook in hooks["createContainer"]] == [
        ["NVIDIA_CTK_DEBUG=false"],
        ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],
    ]


def test_others_hooks_run_behind_ours() -> None:
    """A refused confirm must come before the effects of others."""
    before = docker()
    before["hooks"] = {stage: [{"path": "/other"}] for stage in ("createRuntime", "poststop")}
    hooks = spec.edit(before, injection())["hooks"]
    assert [Path(hook["path"]).name for hook in hooks["createRuntime"]] == ["gpuportion-hook", "other"]
    assert hooks["poststop"] == [{"path": "/other"}]


def test_what_went_is_told() -> None:
    """For the log: the user asked for something that the grant does not give."""
    removed = spec.change(with_gpus(), injection()).removed
    assert {
        "environment NVIDIA_VISIBLE_DEVICES",
        "device /dev/nvidia1",
        "device rule c 195:1",
        "mount /usr/bin/nvidia-smi",
        "prestart hook nvidia-container-runtime-hook",
    } <= set(removed)
    assert spec.change(docker(), injection()).removed == ("environment NVIDIA_VISIBLE_DEVICES",)


def test_an_edited_spec_can_be_edited_again() -> None:
    """Whatever edit a spec has had, it has the effect of the last one."""
    once = spec.edit(with_gpus(), injection())
    assert spec.edit(once, injection()) == once
    assert spec.edit(spec.edit(with_gpus(), injection("1")), injection("0")) == once


def test_the_input_is_left_alone() -> None:
    """The daemon may still need it, and callers may share parts of it."""
    before = with_gpus()
    kept = copy.deepcopy(before)
    spec.edit(before, injection())
    assert before == kept


def test_the_drivers_parts_are_left_alone() -> None:
    """Every container's spec has them."""
    given = injection()
    parts = ("env", "nodes", "rules", "node_mounts", "mounts", "folder", "hooks")
    kept = copy.deepcopy([getattr(given.driver, name) for name in parts])
    first = spec.edit(with_gpus(), given)
    assert spec.edit(with_gpus(), given) == first
    assert [getattr(given.driver, name) for name in parts] == kept


def test_a_users_mount_over_ours_loses() -> None:
    """In our folder it goes; over a parent folder it comes first."""
    before = docker()
    for target in ("/.gpuportion", "/.gpuportion/policy", "/etc/ld.so.preload", "/etc", LIB):
        before["mounts"].append({"destination": target, "source": "/home/user", "options": ["bind"]})
    got = targets(spec.edit(before, injection()))
    assert (
        got.count("/.gpuportion/policy") == got.count("/etc/ld.so.preload") == got.count("/.gpuportion") == 1
    )
    assert got.index("/etc") < got.index("/etc/ld.so.preload")
    assert got.index(LIB) < got.index(f"{LIB}/libcuda.so.550.54.15")


def test_every_name_of_the_driver_is_ours() -> None:
    """libcuda.so, libcuda.so.1 and a 32-bit copy: none of them may be a way past the limit."""
    made = document()
    names = [f"{LIB}/libcuda.so", f"{LIB}/libcuda.so.1", "/usr/lib/i386-linux-gnu/libcuda.so.550.54.15"]
    made["containerEdits"]["mounts"] += [{"hostPath": name, "containerPath": name} for name in names]
    edits = cdi.edits([cdi.parse(made, "x")], cdi.GPU_KIND, ["0"])
    after = spec.edit(docker(), injection(edits=edits))
    sources = {mount["destination"]: mount["source"] for mount in after["mounts"]}
    assert {sources[name] for name in names} == {"/opt/gpuportion/lib/libcap_mem.so"}


def test_numbers_and_access_of_the_cdi_spec_go_before_the_hosts() -> None:
    """A stand-in may say that its node is another device; "none" makes the node and lets nobody in."""
    made = document()
    made["containerEdits"]["deviceNodes"] = [
        {
            "path": "/dev/nvidiactl",
            "type": "c",
            "major": 1,
            "minor": 3,
            "fileMode": 0o600,
            "uid": 7,
            "gid": 8,
        },
        {"path": "/dev/nvidia-uvm", "hostPath": "/dev/nvidia0", "permissions": "none"},
    ]
    edits = cdi.edits([cdi.parse(made, "x")], cdi.GPU_KIND, ["1"])
    linux = spec.edit(docker(), injection(edits=edits))["linux"]
    numbers = {"type": "c", "major": 1, "minor": 3, "fileMode": 0o600, "uid": 7, "gid": 8}
    assert {"path": "/dev/nvidiactl", **numbers} in linux["devices"]
    assert {"path": "/dev/nvidia-uvm", "type": "c", "major": 195, "minor": 0, "fileMode": 0o666} in linux[
        "devices"
    ]
    allowed = [(rule.get("major"), rule.get("minor")) for rule in linux["resources"]["devices"]]
    assert (195, 0) not in allowed and allowed.count((1, 3)) == 1


def test_a_node_that_the_host_lacks_is_refused() -> None:
    """The CDI spec is older than the driver; half a GPU is not handed over."""
    with pytest.raises(
        GpuportionError, match="names the device /dev/nvidia0, and this host has none"
    ) as refusal:
        spec.edit(
            docker(),
            injection(device_numbers={"/dev/nvidiactl": ("c", 195, 255), "/dev/nvidia-uvm": ("c", 5, 1)}),
        )
    assert refusal.value.code == "GP302"


def test_groups_of_the_cdi_spec_are_added_once() -> None:
    """Some drivers guard their nodes by a group."""
    made = document()
    made["containerEdits"]["additionalGids"] = [44, 0, 44]
    edits = cdi.edits([cdi.parse(made, "x")], cdi.GPU_KIND, ["0"])
    after = spec.edit(docker(), injection(edits=edits))
    assert after["process"]["user"] == {"uid": 0, "gid": 0, "additionalGids": [0, 44]}


def test_a_bare_spec_gets_all_of_it() -> None:
    """An OCI spec need not have any of the lists."""
    after = spec.edit({"ociVersion": "1.0.2", "process": None, "linux": {}}, injection())
    assert variables(after)["LD_PRELOAD"].startswith("/.gpuportion/libcuda.so.1:")
    assert len(after["linux"]["devices"]) == len(after["linux"]["resources"]["devices"]) == 4
    assert set(after["hooks"]) == {"createRuntime", "createContainer"}


PATHS = st.sampled_from(
    [
        "/dev/nvidia0",
        "/dev/nvidia-uvm",
        "/data",
        "/dev/fuse",
        "//dev/nvidia7",
        *FILES,
        "/.gpuportion/x",
        "/etc",
    ]
)
NUMBER = st.sampled_from([1, 10, 195, 226, 511])
DEVICE = st.fixed_dictionaries(
    {"path": PATHS, "type": st.sampled_from("cb"), "major": NUMBER, "minor": st.integers(0, 3)}
)
RULE = st.fixed_dictionaries(
    {"allow": st.booleans(), "access": st.just("rw")},
    optional={"type": st.sampled_from("cb"), "major": NUMBER, "minor": st.integers(0, 3)},
)
MOUNT = st.fixed_dictionaries({"destination": PATHS, "source": PATHS}, optional={"x-unknown": st.integers()})
HOOK = st.fixed_dictionaries(
    {
        "path": st.sampled_from(
            ["/usr/bin/nvidia-ctk", "/usr/bin/nvidia-cdi-hook", "/bin/other", "/x/gpuportion-hook"]
        )
    }
)
ENTRY = st.sampled_from(
    [
        "A=1",
        "A=2",
        "LD_PRELOAD=/a.so",
        "NVIDIA_VISIBLE_DEVICES=all",
        "CUDA_MPS_X=1",
        "B",
        "NVIDIA_CTK_LIBCUDA_DIR=/x",
    ]
)
UNKNOWN = st.dictionaries(st.text("abc", min_size=1).map("x-{}".format), st.integers(), max_size=2)
SPECS = st.builds(
    lambda top, process, linux, env, mounts, hooks, devices, rules: {
        **top,
        "process": {**process, "env": env},
        "mounts": mounts,
        "hooks": hooks,
        "linux": {**linux, "devices": devices, "resources": {"x-other": 1, "devices": rules}},
    },
    UNKNOWN,
    UNKNOWN,
    UNKNOWN,
    st.lists(ENTRY, max_size=6),
    st.lists(MOUNT, max_size=6),
    st.dictionaries(st.sampled_from(cdi.STAGES), st.lists(HOOK, max_size=3)),
    st.lists(DEVICE, max_size=5),
    st.lists(RULE, max_size=5),
)


INJECTION = injection()


@given(SPECS)
def test_any_spec_keeps_what_is_not_nvidias_and_loses_what_is(before: dict[str, Any]) -> None:
    """Unknown keys survive; nothing of NVIDIA's of the input does; the edit is its own fixed point."""
    edited = spec.edit(before, INJECTION)
    assert spec.edit(edited, INJECTION) == edited
    for key, value in before.items():
        if key.startswith("x-"):
            assert edited[key] == value
    assert edited["linux"]["resources"]["x-other"] == 1
    assert all(edited["process"][key] == value for key, value in before["process"].items() if key[:2] == "x-")
    allowed = {node.path for node in INJECTION.driver.edits.device_nodes}
    assert all(
        re.match("/dev/nvidia", node["path"]) is None or node["path"] in allowed
        for node in edited["linux"]["devices"]
    )
    others = [mount for mount in edited["mounts"] if "type" not in mount]
    assert others == strip.mounts(others, INJECTION.cdi_paths, strip.Removed())
    assert [mount for mount in before["mounts"] if mount in others] == others
    names = [entry.partition("=")[0] for entry in edited["process"]["env"]]
    assert len(names) == len(set(names)) and "CUDA_MPS_X" not in names
    for rule in edited["linux"]["resources"]["devices"]:
        if rule.get("type") == "c" and rule.get("major") in (195, 511):
            assert rule["allow"] and (rule["major"], rule["minor"]) in {(195, 0), (195, 255), (511, 0)}
