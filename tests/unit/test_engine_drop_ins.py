"""What `gpuportion install` writes for containerd, podman and CRI-O, and takes back again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gpuportion.errors import GpuportionError
from gpuportion.shim.engines import containerd, crio, installation, podman, toml_text
from gpuportion.shim.engines.table import ENGINES

RUNTIME = "/opt/gpuportion/bin/gpuportion-runtime"
V2, V3 = containerd.PLUGINS.values()


def installed(engine: str, config: Path) -> None:
    """As `gpuportion install`, with records beside the file."""
    edits = ENGINES[engine].edits(str(config), RUNTIME, False)
    state = str(config.parent / "lib")
    installation.apply(engine, installation.plan_install(engine, edits, state), state)


def uninstalled(engine: str, config: Path) -> None:
    edits = ENGINES[engine].edits(str(config), "", False)
    state = str(config.parent / "lib")
    installation.apply(engine, installation.plan_uninstall(engine, edits, state), state)


def tables(text: str) -> dict[str, Any]:
    return toml_text.parse(text, "text")


CONFIGS = [
    None,
    "",
    "version = 2\n",
    "# mine\nversion = 2 # two\n",
    f'version = 3\n[plugins."{V3}"]\na = 1\n',
]


@pytest.mark.parametrize("before", CONFIGS, ids=range(len(CONFIGS)))
def test_containerd_gets_its_very_bytes_back(before: str | None, tmp_path: Path) -> None:
    """And the drop-in is gone; nothing is left of us but the empty folder."""
    config = tmp_path / "config.toml"
    if before is not None:
        config.write_text(before)
    installed("containerd", config)
    pattern = f"{tmp_path}/conf.d/99-*gpuportion.toml"
    assert tables(config.read_text())["imports"] == [pattern]
    drop_in = tables((tmp_path / "conf.d/99-gpuportion.toml").read_text())
    assert drop_in["version"] == tables(config.read_text())["version"]
    uninstalled("containerd", config)
    assert (config.read_text() if config.exists() else None) == before
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [config] * (before is not None)


def test_an_edit_of_containerds_file_in_between_is_kept(tmp_path: Path) -> None:
    """Then exactly our pattern goes from the imports."""
    config = tmp_path / "config.toml"
    config.write_text('version = 2\nimports = ["/a.toml"]\n')
    installed("containerd", config)
    config.write_text(config.read_text() + "oom_score = 5 # mine\n")
    uninstalled("containerd", config)
    assert config.read_text() == 'version = 2\nimports = ["/a.toml"]\noom_score = 5 # mine\n'


def runtimes(text: str, plugin: str = V2) -> dict[str, Any]:
    return toml_text.inner(tables(text), "plugins", plugin, "containerd", "runtimes")


SAID = {
    "sandbox_image": "mine",
    "containerd": {
        "snapshotter": "zfs",
        "runtimes": {
            "runc": {
                "runtime_type": containerd.SHIM,
                "pod_annotations": ["x/*"],
                "options": {"SystemdCgroup": True, "BinaryName": "/usr/bin/crun"},
            },
            "kata": {"runtime_type": "io.containerd.kata.v2"},
        },
    },
}


@pytest.mark.parametrize(("version", "plugin"), [(2, V2), (3, V3)])
@pytest.mark.parametrize("whole", [True, False])
def test_the_options_of_runc_are_ours_too(version: int, plugin: str, whole: bool) -> None:
    """SystemdCgroup first of all: with another cgroup driver than kubelet's, no pod starts."""
    text = containerd.drop_in(SAID, version, RUNTIME, set_default=False, whole=whole)
    assert runtimes(text, plugin)["gpuportion"] == {
        "runtime_type": containerd.SHIM,
        "pod_annotations": ["x/*", "gpuportion.io/*"],
        "options": {"SystemdCgroup": True, "BinaryName": RUNTIME},
    }


def test_a_containerd_that_replaces_sections_gets_all_of_it() -> None:
    """Or it would forget what config.toml said."""
    text = containerd.drop_in(SAID, 2, RUNTIME, set_default=True, whole=True)
    section = tables(text)["plugins"][V2]
    assert section["sandbox_image"] == "mine" and section["containerd"]["snapshotter"] == "zfs"
    assert section["containerd"]["default_runtime_name"] == "gpuportion"
    assert section["containerd"]["runtimes"].keys() == {"runc", "kata", "gpuportion"}


def test_a_containerd_that_merges_sections_gets_only_our_runtime() -> None:
    """So that edits of config.toml still count."""
    text = containerd.drop_in(SAID, 3, RUNTIME, set_default=False, whole=False)
    assert tables(text)["plugins"][V3].keys() == {"containerd"}
    assert runtimes(text, V3).keys() == {"gpuportion"}


def test_runc_stays_where_no_runtime_is_named() -> None:
    """containerd before 2.1 has runc by default, but only until a runtime is named."""
    text = containerd.drop_in({}, 2, RUNTIME, set_default=False, whole=True)
    assert runtimes(text)["runc"] == {"runtime_type": containerd.SHIM}


def test_the_default_runtime_is_mirrored_if_it_is_of_runcs_kind() -> None:
    """A kata default has other options, which runc would not know."""
    shims = {"nvidia": containerd.SHIM, "kata": "io.containerd.kata.v2"}
    for default, taken in (("nvidia", "nvidia"), ("kata", "runc")):
        named = {"runc": {"runtime_type": containerd.SHIM, "options": {"Root": "runc"}}} | {
            name: {"runtime_type": shim, "options": {"Root": name}} for name, shim in shims.items()
        }
        said = {"containerd": {"default_runtime_name": default, "runtimes": named}}
        text = containerd.drop_in(said, 2, RUNTIME, set_default=False, whole=False)
        assert runtimes(text)["gpuportion"]["options"]["Root"] == taken


def test_our_drop_in_is_read_after_every_other(tmp_path: Path) -> None:
    """conf.d/*.toml with 99-nvidia.toml in it: ours has another name then, and what NVIDIA's said."""
    config = tmp_path / "config.toml"
    (tmp_path / "conf.d").mkdir()
    config.write_text(f'version = 2\nimports = ["{tmp_path}/conf.d/*.toml"]\n')
    (tmp_path / "conf.d/99-nvidia.toml").write_text(f'version = 2\n[plugins."{V2}"]\nsandbox_image = "n"\n')
    installed("containerd", config)
    names = sorted(path.name for path in (tmp_path / "conf.d").iterdir())
    assert names == ["99-nvidia.toml", "99-zz-gpuportion.toml"]
    uninstalled("containerd", config)
    assert [path.name for path in (tmp_path / "conf.d").iterdir()] == ["99-nvidia.toml"]


REFUSED = {
    'disabled_plugins = ["cri"]\n': 'disabled_plugins: "cri" is disabled',
    f'version = 2\ndisabled_plugins = ["{V2}"]\n': f'disabled_plugins: "{V2}" is disabled',
    "[plugins.cri]\n": "version: this is a configuration of version 1",
    "version = 4\n": "version: this is a configuration of version 4; gpuportion knows 2 and 3",
    "version = = 2\n": "line 1, column 11: ",
}
WAYS_OUT = {
    "disabled_plugins": " is disabled, so nothing would read a runtime. Take it out of disabled_plugins for "
    "Kubernetes; docker, and ctr run --runc-binary, need no installation into containerd.",
    "version": "; gpuportion knows 2 and 3. Move it to version 2 first (containerd config migrate, where containerd "
    "has that).",
    "line": "Mend it first.",
}


@pytest.mark.parametrize("text", REFUSED)
def test_a_containerd_that_would_not_read_us_is_refused(text: str, tmp_path: Path) -> None:
    """With the file and the way out; nothing is written."""
    config = tmp_path / "config.toml"
    config.write_text(text)
    with pytest.raises(GpuportionError) as refused:
        installed("containerd", config)
    assert refused.value.text.startswith(f"GP307 {config}, {REFUSED[text]}")
    assert refused.value.text.endswith(WAYS_OUT[REFUSED[text].partition(":")[0].partition(" ")[0]])
    assert config.read_text() == text and len(list(tmp_path.iterdir())) == 1


def test_podmans_own_runtimes_keep_their_json() -> None:
    """A list in a later file replaces the earlier one, so ours repeats it."""
    said: list[dict[str, Any]] = [{"engine": {"runtime_supports_json": ["crun", "mine"]}}, {"containers": {}}]
    engine = tables(podman.drop_in(said, RUNTIME, set_default=False))["engine"]
    assert engine == {
        "runtime_supports_json": ["crun", "mine", "gpuportion"],
        "runtimes": {"gpuportion": [RUNTIME]},
    }
    unsaid = tables(podman.drop_in([], RUNTIME, set_default=True))["engine"]
    assert unsaid["runtime_supports_json"] == [*podman.STOCK, "gpuportion"]
    assert unsaid["runtime"] == "gpuportion"


def test_podman_5s_way_to_append_is_understood() -> None:
    """`{append=true}` in an earlier file adds to podman's own list."""
    said = tables('[engine]\nruntime_supports_json = ["mine", {append=true}]\n')
    engine = tables(podman.drop_in([said], RUNTIME, set_default=False))["engine"]
    assert engine["runtime_supports_json"] == [*podman.STOCK, "mine", "gpuportion"]


def test_crio_monitors_ours_as_its_default_runtime() -> None:
    """What is about another program is not taken over."""
    runc = {"runtime_path": "/usr/bin/runc", "runtime_root": "/run/runc", "monitor_path": "/usr/bin/conmon"}
    said = [{"crio": {"runtime": {"default_runtime": "runc", "runtimes": {"runc": runc, "crun": {}}}}}]
    expected = {
        "runtime_path": RUNTIME,
        "runtime_type": "oci",
        "runtime_root": "/run/runc",
        "monitor_path": "/usr/bin/conmon",
    }
    runtime = tables(crio.drop_in(said, RUNTIME, set_default=False))["crio"]["runtime"]
    assert runtime == {"runtimes": {"gpuportion": expected}}
    assert tables(crio.drop_in([], RUNTIME, set_default=True))["crio"]["runtime"]["default_runtime"]


HANDLER: dict[str, type] = {
    "runtime_path": str,
    "runtime_type": str,
    "runtime_root": str,
    "privileged_without_host_devices": bool,
    "allowed_annotations": list,
    "monitor_path": str,
    "monitor_cgroup": str,
    "monitor_env": list,
    "monitor_exec_cgroup": str,
    "container_min_memory": str,
    "no_sync_log": bool,
    "default_annotations": dict,
    "exec_cpu_affinity": str,
    "seccomp_profile": str,
    "container_create_timeout": int,
}
"""What CRI-O decodes a runtime's table into (pkg/config/config.go, RuntimeHandler), less what is about its program."""


def test_crio_can_decode_what_we_write() -> None:
    """Every key that it knows of a default runtime, with the type that it wants; nothing that it does not know."""
    stock: dict[str, Any] = {key: kind() for key, kind in HANDLER.items()} | {
        "inherit_default_runtime": True,
        "runtime_config_path": "/of/kata",
    }
    stock["default_annotations"] = {"a/b": "c"}
    said = [{"crio": {"runtime": {"default_runtime": "mine", "runtimes": {"mine": stock}}}}]
    parsed = tables(crio.drop_in(said, RUNTIME, set_default=True))
    runtime = parsed["crio"]["runtime"]
    assert parsed.keys() == {"crio"} and parsed["crio"].keys() == {"runtime"}
    assert runtime.keys() == {"default_runtime", "runtimes"} and runtime["default_runtime"] == "gpuportion"
    assert {key: type(value) for key, value in runtime["runtimes"]["gpuportion"].items()} == HANDLER
    assert runtime["runtimes"]["gpuportion"]["runtime_type"] == "oci"


def test_a_later_table_of_a_crio_runtime_replaces_the_earlier_one() -> None:
    """As CRI-O decodes a map: what the first file said of it is gone."""
    first = {"runtime_root": "/run/old", "monitor_path": "/usr/bin/conmon"}
    said = [{"crio": {"runtime": {"runtimes": {"runc": entry}}}} for entry in (first, {"runtime_root": "/r"})]
    runtimes = tables(crio.drop_in(said, RUNTIME, set_default=False))["crio"]["runtime"]["runtimes"]
    assert runtimes["gpuportion"] == {
        "runtime_path": RUNTIME,
        "runtime_type": "oci",
        "runtime_root": "/r",
    }


@pytest.mark.parametrize("engine", ["podman", "crio"])
def test_a_drop_in_comes_and_goes_whole(engine: str, tmp_path: Path) -> None:
    """Installing twice changes nothing, and taking it out leaves nothing."""
    config = tmp_path / "conf.d/ours.conf"
    installed(engine, config)
    once = config.read_text()
    installed(engine, config)
    assert config.read_text() == once and "gpuportion-runtime" in once
    uninstalled(engine, config)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
