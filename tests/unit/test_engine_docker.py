"""Our runtime in docker's daemon.json, and out of it again, whatever happened in between."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuportion.errors import GpuportionError
from gpuportion.shim.engines import docker
from gpuportion.shim.engines.installation import Change, Record

RUNTIME = "/opt/gpuportion/bin/gpuportion-runtime"

FILES = [
    None,
    "",
    "\n",
    "{}",
    '{"storage-driver":"overlay2"}\n',
    '{\n  "log-opts": {"max-size": "10m"},\n  "runtimes": {\n    "nvidia": {"args": [], "path": "x"}\n  }\n}',
    '{\r\n\t"default-runtime": "nvidia",\r\n\t"runtimes": {}\r\n}',
    '{"runtimes": {"x": {"path": "y"}}, "x": 1e3, "y": "\\u00e4\u00e4"}',
    "{ }",
]


@pytest.mark.parametrize("before", FILES, ids=range(len(FILES)))
@pytest.mark.parametrize("default", [False, True])
def test_uninstalling_gives_the_very_bytes_back(before: str | None, default: bool, tmp_path: Path) -> None:
    """If nobody edited in between; a file that was not there is not there again."""
    config = tmp_path / "daemon.json"
    if before is not None:
        config.write_bytes(before.encode())
    lines = apply(
        docker.plan_install(str(config), RUNTIME, set_default=default, state_dir=state(tmp_path)), tmp_path
    )
    after = json.loads(config.read_text())
    assert after["runtimes"]["gpuportion"] == {"path": RUNTIME}
    assert after.get("default-runtime") == (
        "gpuportion" if default else ("nvidia" if "default" in str(before) else None)
    )
    assert lines[0] == f"{'created' if before is None else 'changed'} {config}"
    apply(docker.plan_uninstall(str(config), state_dir=state(tmp_path)), tmp_path)
    assert (config.read_bytes() if config.exists() else None) == (None if before is None else before.encode())


def state(folder: Path) -> str:
    return str(folder / "lib")


def apply(change: Change, folder: Path) -> list[str]:
    return docker.apply(change, state_dir=state(folder), pidfile=str(folder / "docker.pid"))


def edited(config: Path, **members: Any) -> None:
    config.write_text(json.dumps({**json.loads(config.read_text()), **members}, indent=1))


def test_an_edit_in_between_is_kept(tmp_path: Path) -> None:
    """Then exactly our keys go, and the default runtime is again what it was."""
    config = tmp_path / "daemon.json"
    config.write_text('{"default-runtime": "nvidia", "runtimes": {"nvidia": {"path": "x"}}}')
    apply(docker.plan_install(str(config), RUNTIME, set_default=True, state_dir=state(tmp_path)), tmp_path)
    edited(config, debug=True)
    apply(docker.plan_uninstall(str(config), state_dir=state(tmp_path)), tmp_path)
    runtimes = {"nvidia": {"path": "x"}}
    assert json.loads(config.read_text()) == {
        "default-runtime": "nvidia",
        "runtimes": runtimes,
        "debug": True,
    }


def test_a_default_runtime_that_somebody_changed_stays(tmp_path: Path) -> None:
    """It is ours no more."""
    config = tmp_path / "daemon.json"
    apply(docker.plan_install(str(config), RUNTIME, set_default=True, state_dir=state(tmp_path)), tmp_path)
    edited(config, **{"default-runtime": "crun"})
    apply(docker.plan_uninstall(str(config), state_dir=state(tmp_path)), tmp_path)
    assert json.loads(config.read_text()) == {"default-runtime": "crun"}


@pytest.mark.parametrize("second", [RUNTIME, "/usr/local/bin/gpuportion-runtime"])
def test_installing_again_still_undoes_all(second: str, tmp_path: Path) -> None:
    """The first bytes are remembered over an upgrade that moves the runtime."""
    config = tmp_path / "daemon.json"
    config.write_text('{ "debug":true }')
    for path in (RUNTIME, second, second):
        lines = apply(docker.plan_install(str(config), path, state_dir=state(tmp_path)), tmp_path)
    assert "nothing to do" in lines[0]
    apply(docker.plan_uninstall(str(config), state_dir=state(tmp_path)), tmp_path)
    assert config.read_text() == '{ "debug":true }'


def test_installing_over_an_edit_remembers_the_edit(tmp_path: Path) -> None:
    """What uninstall would give is what the new record holds."""
    config = tmp_path / "daemon.json"
    config.write_text("{}")
    apply(docker.plan_install(str(config), RUNTIME, state_dir=state(tmp_path)), tmp_path)
    edited(config, debug=True)
    apply(docker.plan_install(str(config), "/new", state_dir=state(tmp_path)), tmp_path)
    apply(docker.plan_uninstall(str(config), state_dir=state(tmp_path)), tmp_path)
    assert json.loads(config.read_text()) == {"debug": True}


def test_a_runtime_of_our_name_is_ours(tmp_path: Path) -> None:
    """Whoever wrote it: left behind, it would name a program that is gone."""
    config = tmp_path / "daemon.json"
    config.write_text('{"a": 1, "runtimes": {"gpuportion": {"path": "/old", "runtimeArgs": ["x"]}}}')
    apply(docker.plan_install(str(config), RUNTIME, state_dir=state(tmp_path)), tmp_path)
    assert json.loads(config.read_text())["runtimes"] == {"gpuportion": {"path": RUNTIME}}
    apply(docker.plan_uninstall(str(config), state_dir=state(tmp_path)), tmp_path)
    assert config.read_text() == '{"a": 1}'


@pytest.mark.parametrize("record", [None, "", "{", '{"version": 9}'])
def test_without_a_record_our_keys_are_found_by_name(record: str | None, tmp_path: Path) -> None:
    """A lost or damaged record leaves nothing of ours behind, and nothing else is touched."""
    config = tmp_path / "daemon.json"
    config.write_text(json.dumps({"debug": True, "runtimes": {"gpuportion": {"path": RUNTIME}}}))
    if record is not None:
        os.makedirs(f"{state(tmp_path)}/install")
        Path(f"{state(tmp_path)}/install/docker.json").write_text(record)
    apply(docker.plan_uninstall(str(config), state_dir=state(tmp_path)), tmp_path)
    assert json.loads(config.read_text()) == {"debug": True}


def test_a_record_of_another_file_is_none_of_this_one(tmp_path: Path) -> None:
    """Or what one file had before would be written into another."""
    one, other = tmp_path / "one.json", tmp_path / "other.json"
    one.write_text('{"default-runtime": "nvidia"}')
    apply(docker.plan_install(str(one), RUNTIME, set_default=True, state_dir=state(tmp_path)), tmp_path)
    other.write_bytes(one.read_bytes())
    assert docker.plan_uninstall(str(other), state_dir=state(tmp_path)).after == "{}"
    assert docker.plan_uninstall(str(one), state_dir=state(tmp_path)).after == '{"default-runtime": "nvidia"}'


def test_uninstalling_what_is_not_installed_does_nothing(tmp_path: Path) -> None:
    """Neither in a file without our keys nor where there is no file."""
    config = tmp_path / "daemon.json"
    assert (
        "nothing to do" in apply(docker.plan_uninstall(str(config), state_dir=state(tmp_path)), tmp_path)[0]
    )
    config.write_text('{"runtimes":{"x":{"path":"y"}}}')
    assert docker.plan_uninstall(str(config), state_dir=state(tmp_path)).diff == ""


def test_a_dry_run_shows_the_change(tmp_path: Path) -> None:
    """As diff -u, and nothing is written."""
    config = tmp_path / "daemon.json"
    config.write_text('{\n  "debug": true\n}\n')
    diff = docker.plan_install(str(config), RUNTIME, state_dir=state(tmp_path)).diff
    assert '+  "runtimes": {\n+    "gpuportion": {\n+      "path": "' + RUNTIME in diff
    assert sorted(os.listdir(tmp_path)) == ["daemon.json"]
    assert docker.plan_install(str(tmp_path / "new"), RUNTIME, state_dir=state(tmp_path)).diff.startswith(
        "--- /dev/null\n"
    )


WRONG = {
    '{"runtimes": []}': 'line 1, column 14: "runtimes" is not an object',
    '{"runtimes": null}': 'line 1, column 14: "runtimes" is not an object',
    '{\n"default-runtime": 3}': 'line 2, column 20: "default-runtime" is not a text',
    '{"runtimes": {},}': "line 1, column ",
}


@pytest.mark.parametrize("text", WRONG)
def test_a_file_that_dockerd_would_not_take_is_refused(text: str, tmp_path: Path) -> None:
    """With line and column, and the file stays as it is."""
    config = tmp_path / "daemon.json"
    config.write_text(text)
    with pytest.raises(GpuportionError) as installing:
        docker.plan_install(str(config), RUNTIME, state_dir=state(tmp_path))
    with pytest.raises(GpuportionError) as uninstalling:
        docker.plan_uninstall(str(config), state_dir=state(tmp_path))
    assert installing.value.text == uninstalling.value.text
    assert installing.value.text.startswith(f"GP307 {config}, {WRONG[text]}")
    assert config.read_text() == text


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    """dockerd reads UTF-8."""
    config = tmp_path / "daemon.json"
    config.write_bytes(b'{\n"a": "\xff"}')
    with pytest.raises(GpuportionError, match=r"line 2: it is not UTF-8 text"):
        docker.plan_install(str(config), RUNTIME, state_dir=state(tmp_path))


def test_the_record_is_for_root_alone_to_change(tmp_path: Path) -> None:
    """Its text is written into a file of root's."""
    config = tmp_path / "daemon.json"
    apply(docker.plan_install(str(config), RUNTIME, state_dir=state(tmp_path)), tmp_path)
    mode = stat.S_IMODE(os.stat(f"{state(tmp_path)}/install/docker.json").st_mode)
    assert mode == 0o644
    apply(docker.plan_uninstall(str(config), state_dir=state(tmp_path)), tmp_path)
    assert os.listdir(f"{state(tmp_path)}/install") == []


RUNTIMES = st.dictionaries(st.text(max_size=3) | st.just("gpuportion"), st.just({"path": "/x"}), max_size=3)
CONFIGS = st.fixed_dictionaries(
    {},
    optional={
        "runtimes": RUNTIMES,
        "default-runtime": st.sampled_from(["runc", "gpuportion"]),
        "debug": st.booleans(),
    },
)


@given(CONFIGS, st.booleans(), st.sampled_from([None, 2, "\t"]))
def test_any_config_is_given_back(config: dict[str, Any], default: bool, indent: int | str | None) -> None:
    """By the record; and after an edit in between, everything but our own keys."""
    before = json.dumps(config, indent=indent)
    after = docker.install(before, RUNTIME, set_default=default)
    record = Record(docker.CONFIG, docker.uninstall(before, None), after)
    assert docker.install(after, RUNTIME, set_default=default) == after
    if "gpuportion" not in config.get("runtimes", {}) and config.get("default-runtime") != "gpuportion":
        assert docker.uninstall(after, record) == before
        left = json.loads(docker.uninstall(after + "\n", record) or "")
        assert left == config
